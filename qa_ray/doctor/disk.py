"""Whether the run's storage is one that all nodes see, can be written and read, and has room."""

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from pyarrow import fs

from qa_ray.doctor.nodes import DRIVER, Nodes
from qa_ray.doctor.verdict import Verdict, failed, passed, share, size, told
from qa_ray.locations import is_local
from qa_ray.storage.run_folder import RunFolder

_CURE = (
    "name storage that every node may write and read (--run.storage-path), such as s3://BUCKET/runs or a network file "
    "system that is mounted alike everywhere"
)
# fp32 weights, and Adam's two running means of each.
_BYTES_PER_WEIGHT = 12


def same_storage(nodes: Nodes, storage_path: str) -> Verdict:
    """Have every place write a file into a new folder; the driver looks for all of them, the nodes for the driver's."""
    probe = RunFolder(storage_path, f".qa_ray-doctor-{uuid.uuid4().hex}")
    files = {name: str(number) for number, name in enumerate([DRIVER, *(node.name for node in nodes.all)])}
    absent = nodes.ask(absent_folders, probe, driver=True)
    if absent.failures:
        return failed(told(absent.failures), _CURE)
    try:
        writes = nodes.ask_each(RunFolder.write, {name: (probe, file, b"seen") for name, file in files.items()})
        reads = nodes.ask(RunFolder.read, probe, files[DRIVER])
        listing = nodes.ask_each(names, {DRIVER: (probe,)})
    finally:
        # The driver first: where it deletes for all, the others have nothing to list.
        places = {name: (probe, folders) for name, folders in absent.values.items()}
        own = nodes.ask_each(delete, {DRIVER: places.pop(DRIVER)})
        others = nodes.ask_each(delete, places)
    failures = writes.failures or {**reads.failures, **listing.failures} or {**own.failures, **others.failures}
    if failures:
        return failed(told(failures), _CURE)
    apart = [name for name, seen in reads.values.items() if seen is None or files[name] not in listing.values[DRIVER]]
    if apart:
        return failed(f"{storage_path} is not the same on {share(apart)} as on the driver", _CURE)
    return passed(f"{storage_path} is the same everywhere, and can be written")


def absent_folders(probe: RunFolder) -> tuple[str, ...]:
    """Local folders above the probe that this place has not, the innermost first; none on other storage."""
    filesystem, path = probe.filesystem()
    if not isinstance(filesystem, fs.LocalFileSystem):
        return ()
    return tuple(str(parent) for parent in Path(path).parents if not parent.exists())


def names(probe: RunFolder) -> set[str]:
    """Names of the probe's files.

    Raises:
        StorageError: the storage cannot be read.
    """
    filesystem, path = probe.filesystem()
    with probe.guard("read"):
        return {info.base_name for info in filesystem.get_file_info(fs.FileSelector(path))}


def delete(probe: RunFolder, absent: tuple[str, ...]) -> None:
    """Delete the probe, and the folders that it was the first to need."""
    probe.remove()
    for folder in absent:
        # Not empty: a run has begun there meanwhile.
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def free_space(location: str) -> int | None:
    """Bytes free on the disk of a path, which need not be there yet; None for a URI: a store has no end."""
    if not is_local(location):
        return None
    place = Path(location)
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def temporary() -> tuple[str, int]:
    """The folder for temporary files, where a checkpoint stands until it is stored, and the bytes free in it."""
    folder = tempfile.gettempdir()
    return folder, shutil.disk_usage(folder).free


def enough_space(free: int | None, found: Mapping[str, tuple[str, int]], num_weights: int, keep: int) -> Verdict:
    """Compare the free space of the storage, and that for temporary files by node, with a run's checkpoints.

    Args:
        free: bytes in the storage, if that is known.
        found: the folder for temporary files and the bytes free in it.
        num_weights: of the model.
        keep: checkpoints that the run keeps.
    """
    checkpoint = _BYTES_PER_WEIGHT * num_weights
    # The newest ones, the best one, one on its way, and at last the model alone.
    need = (keep + 2) * checkpoint + checkpoint // 3
    estimate = f"a checkpoint takes {size(checkpoint)}, the run {size(need)}"
    if free is not None and free < need:
        cure = "make room there, name other storage (--run.storage-path), or keep fewer checkpoints (--checkpoint.keep)"
        return failed(f"{estimate}; only {size(free)} are free in run.storage_path", cure)
    # One is written there while the one before it is on its way.
    least = 2 * checkpoint
    short = {name: f"{size(left)} are free in {folder}" for name, (folder, left) in found.items() if left < least}
    if short:
        cure = "checkpoints are written there first: make room, or set TMPDIR to a larger disk before `ray start`"
        return failed(f"{estimate}; {told(short)}", cure)
    rest = "how much is free is not known" if free is None else f"{size(free)} are free"
    return passed(f"{estimate}; {rest}")
