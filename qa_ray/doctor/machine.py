"""What one node's hardware gives: GPUs and number formats, memory, object store, disks, open files."""

import os
import resource
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from qa_ray.config.policies import Precision
from qa_ray.doctor.verdict import Verdict, by_value, failed, passed, share, size, skipped, told, warning
from qa_ray.errors import ConfigError
from qa_ray.model.precision import choose_precision, dtype_of, emulates_bf16

_SHARED_MEMORY = "/dev/shm"
# Ray's documentation asks for so many; each worker process holds connections to all others.
_OPEN_FILES = 65_535


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as torch sees it."""

    name: str
    memory: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Devices:
    """What a node computes with."""

    gpus: tuple[Gpu, ...]
    precision: str
    """Number format that `train.precision` means there."""
    emulated: bool
    """Whether the hardware has no instructions for it."""
    problem: str = ""
    """Why it cannot be computed."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a node has room for; bytes, but for `open_files`."""

    shared_memory: int
    """Whole size of /dev/shm, where the object store lives."""
    temporary: int
    """Free in the folder for temporary files, where a checkpoint stands until it is stored."""
    temporary_folder: str
    spill: int
    """Free where Ray spills objects."""
    open_files: int
    """Files that a process may open."""


def devices(wanted: Precision, use_gpu: bool) -> Devices:
    """Look at this node's GPUs, and compute something in the number format that `wanted` means there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = tuple(
        Gpu(properties.name, properties.total_memory)
        for properties in (torch.cuda.get_device_properties(index) for index in range(count))
    )
    places = [torch.device("cuda", index) for index in range(count)] if use_gpu and count else [torch.device("cpu")]
    try:
        chosen = {place: choose_precision(wanted, place) for place in places}
        for place, precision in chosen.items():
            _compute(place, precision)
    except ConfigError as error:
        return Devices(gpus, str(wanted), emulated=False, problem=str(error))
    emulated = any(precision is Precision.BF16 and emulates_bf16(place) for place, precision in chosen.items())
    return Devices(gpus, " and ".join(sorted(set(chosen.values()))), emulated)


def _compute(place: torch.device, precision: Precision) -> None:
    """A build of torch may know a GPU and hold no code for it."""
    try:
        ones = torch.ones(16, 16, device=place, dtype=dtype_of(precision))
        result = float((ones @ ones).sum())
    except RuntimeError as error:
        raise ConfigError(f"{place} cannot compute in {precision}: {' '.join(str(error).split())[:200]}") from error
    if result != 16**3:
        raise ConfigError(f"{place} computes wrongly in {precision}: {result} instead of {16**3}")


def same_gpus(found: Mapping[str, Devices], counted: Mapping[str, int], need: int | None) -> Verdict:
    """Compare the GPUs that torch sees with those that Ray counts, and with each other.

    Args:
        found: by node.
        counted: GPUs by node, as Ray gives them to workers.
        need: bytes that the model takes on each, if they are known.
    """
    hidden = {name: f"Ray counts {counted[name]}, torch sees {len(one.gpus)}" for name, one in found.items()}
    lacking = {name: text for name, text in hidden.items() if len(found[name].gpus) < counted[name]}
    unused = {name: text for name, text in hidden.items() if found[name].gpus and not counted[name]}
    if lacking:
        cure = "install a build of torch for CUDA there, and see whether nvidia-smi and the driver work"
        return failed(told(lacking), cure)
    gpus = [gpu for name, one in found.items() for gpu in one.gpus[: counted[name]]]
    if not gpus and unused:
        return warning(told(unused), "start Ray there with --num-gpus to train on them")
    if not gpus:
        return skipped("no node has one")
    smallest = min(gpu.memory for gpu in gpus)
    if need is not None and need > smallest:
        return failed(
            f"weights, gradients and optimizer take {size(need)}, and a GPU has {size(smallest)}",
            "choose a smaller model, or GPUs with more memory",
        )
    working = {name: one for name, one in found.items() if counted[name]}
    kinds = by_value({name: ", ".join(sorted({gpu.name for gpu in one.gpus})) for name, one in working.items()})
    if len(kinds) > 1 or len({gpu.name for gpu in gpus}) > 1:
        listed = "; ".join(f"{kind} on {share(names)}" for kind, names in kinds.items())
        return warning(f"GPUs of several kinds: {listed}", "the slowest sets the pace: take nodes of one kind")
    return passed(f"{len(gpus)} x {gpus[0].name}, {size(smallest)} each")


def same_precision(found: Mapping[str, Devices], wanted: Precision) -> Verdict:
    """Compare what `train.precision` means on the nodes."""
    problems = {name: one.problem for name, one in found.items() if one.problem}
    if problems:
        return failed(told(problems), "let --train.precision be auto, or use hardware that computes in it")
    kinds = by_value({name: one.precision for name, one in found.items()})
    if len(kinds) > 1 or " and " in next(iter(kinds)):
        listed = "; ".join(f"{kind} on {share(names)}" for kind, names in kinds.items())
        return failed(
            f"train.precision={wanted} means {listed}",
            "gradients of several formats cannot be added: name one, such as --train.precision fp32",
        )
    (precision,) = kinds
    emulating = [name for name, one in found.items() if one.emulated]
    if emulating:
        return warning(
            f"{share(emulating)}: bf16 is emulated there, and slow",
            "set --train.precision auto, which takes it only where the hardware has it",
        )
    return passed(f"train.precision={wanted} is {precision}, and computes")


def room(session: str) -> Room:
    """Look at this node's memory, disks and limits; `session` is the folder of its Ray session."""
    temporary = tempfile.gettempdir()
    return Room(
        shared_memory=shutil.disk_usage(_SHARED_MEMORY).total if os.path.isdir(_SHARED_MEMORY) else 0,
        temporary=shutil.disk_usage(temporary).free,
        temporary_folder=temporary,
        spill=free_at(session),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def free_at(path: str) -> int:
    """Bytes free on the disk that a path, which need not be there yet, is on."""
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def object_store(found: Mapping[str, Room], stores: Mapping[str, float], need: int) -> Verdict:
    """Compare the nodes' object stores with the tokenised data, `need` bytes, of which each node holds a copy."""
    slow = [name for name, one in found.items() if one.shared_memory < stores[name]]
    smallest = min(stores, key=lambda name: stores[name])
    seen = f"the tokenised data take about {size(need)}, the smallest store has {size(stores[smallest])} ({smallest})"
    enlarge = "give Ray a larger one (ray start --object-store-memory BYTES), or use less data"
    full = [name for name, one in found.items() if need > stores[name] + one.spill]
    if full:
        return failed(f"{seen}, and the disk of {share(full)} has no room for the rest", enlarge)
    if need > stores[smallest]:
        return warning(f"{seen}: the rest is spilled to disk, and slow", enlarge)
    if slow:
        return warning(
            f"{share(slow)}: /dev/shm is smaller than the object store, which then lies on a disk",
            "give the container more shared memory (docker run --shm-size, an emptyDir of medium Memory)",
        )
    return passed(seen)


def memory(sizes: Mapping[str, float], needs: Mapping[str, float]) -> Verdict:
    """Compare the nodes' memory with what the model takes on them, without activations; bytes by node."""
    short = {
        name: f"the model takes {size(needs[name])}, and there are {size(sizes[name])}"
        for name in sizes
        if needs[name] > sizes[name]
    }
    if short:
        cure = "set fewer workers a node (--cluster.cpus-per-worker), take a smaller model, or larger nodes"
        return failed(told(short), cure)
    tightest = max(sizes, key=lambda name: needs[name] / max(sizes[name], 1.0))
    return passed(
        f"the model takes up to {size(needs[tightest])} without activations; {size(sizes[tightest])} on {tightest}"
    )


def open_files(found: Mapping[str, Room]) -> Verdict:
    """Warn of low limits where several nodes talk to each other."""
    limits = {name: one.open_files for name, one in found.items()}
    low = {name: f"{limit} open files a process" for name, limit in limits.items() if limit < _OPEN_FILES}
    if low and len(found) > 1:
        return warning(told(low), f"raise the limit to {_OPEN_FILES} before `ray start` (ulimit -n {_OPEN_FILES})")
    return passed(f"at least {min(limits.values())} a process")
