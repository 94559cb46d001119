"""Who may write into a run: one job at a time."""

import contextlib
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from pyarrow import fs

from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import CLAIMS, RunFolder


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
