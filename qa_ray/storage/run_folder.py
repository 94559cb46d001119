"""A run's folder, on a local disk or on any filesystem that pyarrow opens, and the names of what is in it."""

import contextlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from pyarrow import ArrowException, fs

from qa_ray.config.operation import RunConfig
from qa_ray.errors import StorageError
from qa_ray.locations import is_local, within

CONFIG = "config.json"
"""The run's configuration."""
FINGERPRINT = "fingerprint.jsonl"
"""Digests of the data and the tokenizer that the run was begun with."""
ENVIRONMENT = "environment.json"
"""Versions, commit and workers' hardware that the run was made with."""
METRICS = "metrics.jsonl"
"""What was recorded by step."""
NODES = "nodes.json"
"""Numbers of the nodes that trained it."""
RESULT = "result.json"
"""What a finished run has to show."""
TRACKING = "tracking.json"
"""The run's place in MLflow, and what MLflow should know of it."""
OWNER = "owner"
"""Names the job that may write into the run."""
WORKER_GROUP = "worker_group"
"""Names that job's newest group of workers, which alone may write checkpoints."""
CLAIMS = "claims"
"""Folder with a file for each job that has begun the run or gone on with it."""
MODEL = "model"
"""Folder of the model, in a checkpoint and in a run."""
EVALUATION = "evaluation"
"""Folder of the predictions, in a checkpoint and in a run."""
INTERVALS = f"{EVALUATION}/intervals.json"
"""How sure the scores of the model are."""
REPORT = f"{EVALUATION}/report.html"
"""The page that shows how good the model is."""
CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints."""


def checkpoint_name(step: int) -> str:
    """Name of the checkpoint after `step` optimizer steps; names sort by step."""
    return f"step-{step:08d}"


# pyarrow's names of the filesystems where a file appears when it is whole, and where moving means copying.
_OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder."""

    storage_path: str
    """Absolute path or URI of the folder that holds the runs; a URI may end with a query (?endpoint_override=...)."""
    name: str

    @classmethod
    def locate(cls, config: RunConfig) -> Self:
        """Work out where the run's folder is, without touching the storage.

        Raises:
            StorageError: the run has no name.
        """
        if config.name is None:
            raise StorageError("run.name is not set: name the run")
        storage = os.path.abspath(config.storage_path) if is_local(config.storage_path) else config.storage_path
        return cls(storage, config.name)

    @classmethod
    def at(cls, location: str) -> Self:
        """The folder at a path or URI, which may end with a query (?endpoint_override=...)."""
        if is_local(location):
            path = os.path.abspath(os.path.expanduser(location))
            return cls(os.path.dirname(path), os.path.basename(path))
        place, mark, query = location.partition("?")
        storage, _, name = place.rstrip("/").rpartition("/")
        return cls(f"{storage}{mark}{query}", unquote(name))

    @property
    def uri(self) -> str:
        """Absolute path or URI of this run's folder."""
        return within(self.storage_path, self.name)

    def filesystem(self) -> tuple[fs.FileSystem, str]:
        """Return the filesystem and the path of this run's folder on it.

        Raises:
            StorageError: the storage path is no URI that pyarrow opens, or cannot be reached.
        """
        with self.guard("opened"):
            filesystem, path = fs.FileSystem.from_uri(self.uri)
        return filesystem, path

    def exists(self) -> bool:
        """Whether something of this name is in the storage.

        Raises:
            StorageError: the storage cannot be read.
        """
        filesystem, path = self.filesystem()
        with self.guard("read"):
            return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)

    def read(self, name: str) -> bytes | None:
        """Return what is in a file of the run; None if there is no such file.

        Raises:
            StorageError: it cannot be read.
        """
        filesystem, path = self.filesystem()
        with self.guard("read"):
            return read_file(filesystem, f"{path}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the run; whoever is killed meanwhile leaves the old or the new content, never half of it.

        Raises:
            StorageError: the disk is full, read-only or gone.
        """
        filesystem, folder = self.filesystem()
        with self.guard("written"):
            write_file(filesystem, f"{folder}/{name}", content, half=f"{folder}/{name}.part")

    def copy(self, source: fs.FileSystem, path: str, name: str) -> None:
        """Copy the folder `path` of another filesystem into the run, below `name`.

        Raises:
            StorageError: the disk is full, read-only or gone.
        """
        filesystem, own = self.filesystem()
        target = f"{own}/{name}".rstrip("/")
        with self.guard("written"):
            filesystem.create_dir(target, recursive=True)
            fs.copy_files(path, target, source_filesystem=source, destination_filesystem=filesystem)

    def download(self, name: str) -> Path:
        """Return a local folder that holds the run's folder `name`: itself, or a copy in a temporary folder.

        Raises:
            StorageError: it cannot be read, or the copy does not fit on the local disk.
        """
        filesystem, path = self.filesystem()
        if isinstance(filesystem, fs.LocalFileSystem):
            return Path(path) / name
        target = Path(tempfile.mkdtemp(prefix="qa_ray-"))
        try:
            with self.guard(f"copied to {target}"):
                fs.copy_files(f"{path}/{name}".rstrip("/"), str(target), source_filesystem=filesystem)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        return target

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """As `download`, with the copy deleted at the end."""
        filesystem, _ = self.filesystem()
        folder = self.download(name)
        try:
            yield folder
        finally:
            if not isinstance(filesystem, fs.LocalFileSystem):
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Delete the run's folder, if it is there."""
        filesystem, path = self.filesystem()
        with contextlib.suppress(OSError):
            filesystem.delete_dir(path)

    def guard(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Turn an error of the filesystem into a StorageError of one line, which says what cannot be done."""
        return guarded(f"run.storage_path={self.storage_path}", what)


@contextlib.contextmanager
def guarded(place: str, what: str) -> Iterator[None]:
    """Turn an error of a filesystem into a StorageError of one line: what of `place` cannot be done."""
    try:
        yield
    except (ArrowException, OSError) as error:
        raise StorageError(
            f"{place} cannot be {what}: {_reason(error)} (it must be a folder or URI that every node can reach, has "
            "free space, and that you may read and write)"
        ) from error


def read_file(filesystem: fs.FileSystem, path: str) -> bytes | None:
    """Return what is in a file; None if there is no such file."""
    try:
        # pyarrow would unpack a .gz otherwise.
        stream = filesystem.open_input_stream(path, compression=None)
    except FileNotFoundError:
        return None
    with stream:
        return bytes(stream.readall())


def write_file(filesystem: fs.FileSystem, path: str, content: bytes, *, half: str) -> None:
    """Write a file, and its folder; whoever is killed meanwhile leaves the old or the new content, never half of it.

    Args:
        filesystem: where it lies.
        path: of the file.
        content: all of it.
        half: path in the same folder of what is not yet whole, where files do not appear at once.
    """
    filesystem.create_dir(posixpath.dirname(path), recursive=True)
    atomic = filesystem.type_name in _OBJECT_STORES
    with filesystem.open_output_stream(path if atomic else half, compression=None) as stream:
        stream.write(content)
    if not atomic:
        filesystem.move(half, path)


def _reason(error: Exception) -> str:
    """What went wrong; Python's own errors keep the file apart from the reason."""
    reason = str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(reason.split())
