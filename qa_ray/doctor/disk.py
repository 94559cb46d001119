"""Whether the run's storage is one that all nodes see, can be written and read, and has room."""

import contextlib
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from qa_ray.doctor.machine import Room, free_at
from qa_ray.doctor.verdict import Verdict, failed, passed, share, size, told
from qa_ray.locations import is_local
from qa_ray.storage.run_folder import RunFolder

_CURE = (
    "name storage that every node may write and read (--run.storage-path), such as s3://BUCKET/runs or a network file "
    "system that is mounted alike everywhere"
)
# fp32 weights, and Adam's two running means of each.
BYTES_PER_WEIGHT = 12


@dataclass(frozen=True, slots=True)
class Probe:
    """A folder that is there while the storage is tried."""

    folder: RunFolder
    absent: tuple[str, ...] = ()
    """Local folders above it that were not there before, the innermost first."""

    @classmethod
    def below(cls, storage: RunFolder) -> "Probe":
        """Choose a hidden folder beside the runs that no run has."""
        return cls(RunFolder(storage.storage_path, f".qa_ray-doctor-{uuid.uuid4().hex}"))


def absent_folders(probe: Probe) -> tuple[str, ...]:
    """Local folders above the probe that this place has not, the innermost first; none on other storage."""
    filesystem, path = probe.folder.filesystem()
    if not isinstance(filesystem, fs.LocalFileSystem):
        return ()
    return tuple(str(parent) for parent in Path(path).parents if not parent.exists())


def write(probe: Probe, name: str) -> float:
    """Write a file under this place's name; returns the seconds it took.

    Raises:
        StorageError: it cannot be written.
    """
    start = time.monotonic()
    probe.folder.write(_file(name), name.encode())
    return time.monotonic() - start


def read(probe: Probe, names: list[str]) -> tuple[float, list[str]]:
    """Read what the named places have written; returns seconds, and those whose file is not there.

    Raises:
        StorageError: the storage cannot be read.
    """
    start = time.monotonic()
    missing = [name for name in names if probe.folder.read(_file(name)) != name.encode()]
    return time.monotonic() - start, missing


def delete(probe: Probe, absent: tuple[str, ...]) -> float:
    """Delete the probe, and the folders that it was the first to need; returns the seconds it took."""
    start = time.monotonic()
    probe.folder.remove()
    for folder in absent:
        # Not empty: a run has begun there meanwhile.
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return time.monotonic() - start


def _file(name: str) -> str:
    return name.replace("/", "-").replace(" ", "-")


def same_storage(
    storage_path: str,
    writes: Mapping[str, float],
    reads: Mapping[str, tuple[float, list[str]]],
    deletes: Mapping[str, float],
) -> Verdict:
    """Say whether every place has read what every other has written."""
    blind = {name: f"does not see what {share(missing)} wrote" for name, (_, missing) in reads.items() if missing}
    if blind:
        return failed(f"{storage_path} is not the same everywhere: {told(blind)}", _CURE)
    times = (writes.values(), [seconds for seconds, _ in reads.values()], deletes.values())
    write, read, delete = (f"{max(seconds):.2f} s" for seconds in times)
    return passed(f"{storage_path} is the same everywhere; write {write}, read {read}, delete {delete}")


def refused(failures: Mapping[str, str]) -> Verdict:
    """Say who could not write or read."""
    return failed(told(failures), _CURE)


def free_space(storage_path: str) -> int | None:
    """Bytes free where a path is; None for a URI, since a store has no end that could be asked for."""
    return free_at(storage_path) if is_local(storage_path) else None


def enough_space(free: int | None, found: Mapping[str, Room], num_weights: int, keep: int) -> Verdict:
    """Compare free space with the checkpoints of a run that keeps `keep` of them."""
    checkpoint = BYTES_PER_WEIGHT * num_weights
    # The newest ones, the best one, one on its way, and at last the model alone.
    need = (keep + 2) * checkpoint + checkpoint // 3
    estimate = f"a checkpoint takes {size(checkpoint)}, the run {size(need)}"
    if free is not None and free < need:
        return failed(
            f"{estimate}; only {size(free)} are free in run.storage_path",
            "make room there, name other storage (--run.storage-path), or keep fewer checkpoints (--checkpoint.keep)",
        )
    # One is written there while the one before it is on its way.
    short = {
        name: f"{size(one.temporary)} are free in {one.temporary_folder}"
        for name, one in found.items()
        if one.temporary < 2 * checkpoint
    }
    if short:
        cure = "checkpoints are written there first: make room, or set TMPDIR to a larger disk before `ray start`"
        return failed(f"{estimate}; {told(short)}", cure)
    rest = "how much is free is not known" if free is None else f"{size(free)} are free"
    least = min(one.temporary for one in found.values())
    return passed(f"{estimate}; {rest}, {size(least)} for temporary files")
