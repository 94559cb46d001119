"""What a node computes with: versions of the packages, qa_ray's own files, GPUs and number formats."""

import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

import qa_ray
from qa_ray.config.policies import Precision
from qa_ray.doctor.verdict import Verdict, by_value, failed, listed, passed, share, skipped, told, warning
from qa_ray.model.compute import choose_precision, dtype_of, emulates_bf16
from qa_ray.tracking.environment import versions

PACKAGES = ("torch", "transformers", "ray", "qa_ray", "tokenizers", "accelerate", "pyarrow", "numpy")
_NUM_SHOWN = 4
Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Devices:
    """What a node computes with."""

    gpus: tuple[tuple[str, int], ...]
    """Name and bytes of each GPU, as torch sees them."""
    precision: str
    """Number format that `train.precision` means there; empty where it has no GPU and workers need one."""
    emulated: bool
    """Whether the hardware has no instructions for it."""


def installed() -> Texts:
    """Versions of Python and of the packages that matter."""
    return {"python": platform.python_version()} | versions(PACKAGES)


def code() -> Texts:
    """Digest of each of qa_ray's Python files, by its path in the package."""
    folder = Path(qa_ray.__file__).parent
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.py"))}
    return {name: sha256(content).hexdigest()[:16] for name, content in files.items()}


def same_versions(found: Mapping[str, Texts]) -> Verdict:
    """Compare the versions of all places."""
    differing = [f"{package} is {listed(places)}" for package, places in _differing(found).items()]
    if differing:
        return failed("; ".join(differing), "install the same versions everywhere, such as those of constraints.txt")
    common = [f"{package} {version}" for package, version in next(iter(found.values())).items()]
    return passed(f"the same everywhere: {', '.join(common[:_NUM_SHOWN])} and {len(common) - _NUM_SHOWN} more")


def same_code(found: Mapping[str, Texts]) -> Verdict:
    """Compare qa_ray's own files in all places."""
    differing = _differing(found)
    if not differing:
        return passed(f"the same everywhere: qa_ray's {len(next(iter(found.values())))} files")
    others = {name for places in differing.values() for names in list(by_value(places).values())[1:] for name in names}
    cure = "install the same commit of qa_ray on all nodes, or submit the job with --working-dir"
    return failed(f"qa_ray/{share(sorted(differing))} differ on {share(sorted(others))}", cure)


def _differing(found: Mapping[str, Texts]) -> dict[str, Texts]:
    """Texts by place, of the names whose text is not the same in all places."""
    names = dict.fromkeys(name for texts in found.values() for name in texts)
    places = {name: {place: texts.get(name, "none") for place, texts in found.items()} for name in names}
    return {name: texts for name, texts in places.items() if len(set(texts.values())) > 1}


def devices(wanted: Precision, use_gpu: bool) -> Devices:
    """Look at this node's GPUs, and compute something in the number format that `wanted` means there.

    Raises:
        ConfigError: there is no such format here.
        RuntimeError: torch cannot compute in it.
    """
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    known = [torch.cuda.get_device_properties(gpu) for gpu in gpus]
    chosen = {place: choose_precision(wanted, place) for place in (gpus if use_gpu else [torch.device("cpu")])}
    for place, precision in chosen.items():
        # A build of torch may know a GPU and hold no code for it.
        ones = torch.ones(16, 16, device=place, dtype=dtype_of(precision))
        (ones @ ones).sum().item()
    emulated = any(precision is Precision.BF16 and emulates_bf16(place) for place, precision in chosen.items())
    named = tuple((one.name, one.total_memory) for one in known)
    return Devices(named, " and ".join(sorted(set(chosen.values()))), emulated)


def same_devices(found: Mapping[str, Devices], counted: Mapping[str, int], wanted: Precision) -> Verdict:
    """Compare the GPUs that torch sees with those that Ray counts, by node, and what the precision means on them."""
    sights = {name: f"Ray counts {counted[name]} GPUs, torch sees {len(one.gpus)}" for name, one in found.items()}
    lacking = {name: sights[name] for name, one in found.items() if len(one.gpus) < counted[name]}
    if lacking:
        cure = "install a build of torch for CUDA there, and see whether nvidia-smi and the driver work"
        return failed(told(lacking), cure)
    formats = {name: one.precision for name, one in found.items() if one.precision}
    if not formats:
        return skipped("no node has a GPU to look at")
    precision, *others = set(formats.values())
    if others or " and " in precision:
        cure = "gradients of several formats cannot be added: name one, such as --train.precision fp32"
        return failed(f"train.precision={wanted} means {listed(formats)}", cure)
    emulating = [name for name, one in found.items() if one.emulated]
    if emulating:
        cure = "set --train.precision auto, which takes it only where the hardware has it"
        return warning(f"{share(emulating)}: bf16 is emulated there, and slow", cure)
    unused = {name: sights[name] for name, one in found.items() if one.gpus}
    if unused and not any(counted.values()):
        return warning(told(unused), "start Ray there with --num-gpus to train on them")
    kinds = Counter(gpu for name, one in found.items() for gpu, _ in one.gpus[: counted[name]])
    gpus = ", ".join(f"{number} x {kind}" for kind, number in kinds.items()) or "no GPU"
    return passed(f"{gpus}; train.precision={wanted} is {precision}, and computes")
