"""Who may write into a run: one job at a time, and of its worker groups the newest."""

import contextlib
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pyarrow import fs

from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import CLAIMS, OWNER, WORKER_GROUP, RunFolder


def create(folder: RunFolder, job: str, files: Mapping[str, bytes]) -> None:
    """Begin a run with these files, unless another job has begun one of its name since it was looked for.

    Of several jobs that try at the same time one succeeds on a local disk or a network file system, where the whole
    folder appears at once. Other storage cannot be asked to make only what is not there yet: each job leaves a file
    of its own and then looks for others'. Where a listing shows all that was written before it, as on S3, Google's
    and Azure's, never two succeed; none may.

    Raises:
        StorageError: another job has begun it, or the storage cannot be written.
    """
    filesystem, path = folder.filesystem()
    if isinstance(filesystem, fs.LocalFileSystem):
        with folder.guard("written"):
            made = _create_at_once(Path(path), {f"{CLAIMS}/{job}": b""} | dict(files))
    else:
        join(folder, job)
        made = _jobs(folder) == {job}
        if made:
            for name, content in files.items():
                folder.write(name, content)
        else:
            _delete_claim(folder, job)
    if not made:
        raise StorageError(
            f"run.name={folder.name}: another job has begun a run of this name in {folder.storage_path} at this "
            "moment: choose another name, or run the same command once more to take its run over"
        )


def join(folder: RunFolder, job: str) -> None:
    """Leave word that a job goes on with a run, so that whoever began it does not remove it.

    Raises:
        StorageError: the storage cannot be written.
    """
    folder.write(f"{CLAIMS}/{job}", b"")


def withdraw(folder: RunFolder, job: str, *, created: bool) -> None:
    """Undo `create` or `join`: a run is removed by the job that created it, unless another has joined it since."""
    with contextlib.suppress(StorageError):
        if created and _jobs(folder) == {job}:
            folder.remove()
        else:
            _delete_claim(folder, job)


def _create_at_once(path: Path, files: Mapping[str, bytes]) -> bool:
    """Make a local folder with these files, unless it is there; whoever is killed meanwhile leaves no half of it."""
    half = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        for name, content in files.items():
            (half / name).parent.mkdir(parents=True, exist_ok=True)
            (half / name).write_bytes(content)
        try:
            half.rename(path)
        except OSError:
            if path.exists():
                return False
            raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return True


def _jobs(folder: RunFolder) -> set[str]:
    """The jobs that have begun a run or gone on with it."""
    filesystem, path = folder.filesystem()
    with folder.guard("read"):
        found = filesystem.get_file_info(fs.FileSelector(f"{path}/{CLAIMS}", allow_not_found=True))
    return {info.base_name for info in found}


def _delete_claim(folder: RunFolder, job: str) -> None:
    filesystem, path = folder.filesystem()
    with contextlib.suppress(OSError):
        filesystem.delete_file(f"{path}/{CLAIMS}/{job}")


@dataclass(frozen=True, slots=True)
class Ownership:
    """What a worker group must hold to write into a run."""

    folder: RunFolder
    job: str
    """Of the driver, which wrote it into the file `OWNER`."""
    group: str
    """This worker group among all that ever worked on the run; later ones sort behind earlier ones."""

    @classmethod
    def claim(cls, folder: RunFolder, job: str) -> Self:
        """Take the run over from the worker group before; one process of the new group does so when it starts.

        The driver's file is only read here: a job that has lost its run must not take it back.

        Raises:
            StorageError: another job has gone on with the run, or the storage cannot be used.
        """
        if folder.read(OWNER) != job.encode():
            raise StorageError(f"run.name={folder.name}: another job has gone on with this run, which is left to it")
        claimed = cls(folder, job, new_group((folder.read(WORKER_GROUP) or b"").decode()))
        folder.write(WORKER_GROUP, claimed.group.encode())
        return claimed

    def holds(self) -> bool:
        """Whether nobody has taken the run over.

        Raises:
            StorageError: the storage cannot be read.
        """
        return self.folder.read(OWNER) == self.job.encode() and self.folder.read(WORKER_GROUP) == self.group.encode()


def new_group(before: str = "") -> str:
    """A name for a worker group that no other has; it sorts behind that of the group before, on whichever clock."""
    return f"{max(time.time_ns(), int(before.partition('-')[0] or 0) + 1):020d}-{uuid.uuid4().hex[:8]}"
