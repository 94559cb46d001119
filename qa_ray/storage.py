"""A run's folder, on a local disk or on any filesystem that pyarrow opens."""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pyarrow import ArrowInvalid, fs

from qa_ray.config import RunConfig
from qa_ray.errors import StorageError
from qa_ray.locations import is_local


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder."""

    storage_path: str
    """Absolute path or URI of the folder that holds the runs."""
    name: str

    @property
    def uri(self) -> str:
        """Absolute path or URI of this run's folder."""
        return f"{self.storage_path.rstrip('/')}/{self.name}"

    @classmethod
    def create(cls, config: RunConfig) -> Self:
        """Make the folder of a new run.

        Raises:
            StorageError: the run exists already, or the storage path cannot be written.
        """
        if config.name is None:
            raise StorageError("run.name is not set: name the run")
        storage = os.path.abspath(config.storage_path) if is_local(config.storage_path) else config.storage_path
        folder = cls(storage, config.name)
        if folder.exists():
            raise StorageError(
                f"run.name={config.name}: a run of this name exists in {storage}: choose another name, or remove it"
            )
        folder.write("config.json", b"")
        return folder

    def exists(self) -> bool:
        """Whether something of this name is in the storage."""
        filesystem, path = self._open()
        try:
            return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)
        except OSError as error:
            raise self._failed("read", error) from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the run.

        Raises:
            StorageError: the disk is full, read-only or gone.
        """
        filesystem, path = self._open()
        try:
            filesystem.create_dir(path, recursive=True)
            with filesystem.open_output_stream(f"{path}/{name}") as stream:
                stream.write(content)
        except OSError as error:
            raise self._failed("written", error) from error

    def copy(self, source: fs.FileSystem, path: str, name: str) -> None:
        """Copy the folder `path` of another filesystem into the run, below `name`.

        Raises:
            StorageError: the disk is full, read-only or gone.
        """
        filesystem, own = self._open()
        target = f"{own}/{name}".rstrip("/")
        try:
            filesystem.create_dir(target, recursive=True)
            fs.copy_files(path, target, source_filesystem=source, destination_filesystem=filesystem)
        except OSError as error:
            raise self._failed("written", error) from error

    def download(self, name: str) -> Path:
        """Return a local folder that holds the run's folder `name`: itself, or a copy in a temporary folder."""
        filesystem, path = self._open()
        if is_local(self.storage_path):
            return Path(path) / name
        target = Path(tempfile.mkdtemp(prefix="qa_ray-"))
        fs.copy_files(f"{path}/{name}", str(target), source_filesystem=filesystem)
        return target

    def remove(self) -> None:
        """Delete the run's folder, if it is there."""
        filesystem, path = self._open()
        with contextlib.suppress(OSError):
            filesystem.delete_dir(path)

    def _open(self) -> tuple[fs.FileSystem, str]:
        try:
            filesystem, path = fs.FileSystem.from_uri(self.uri)
        except (ArrowInvalid, OSError) as error:
            raise self._failed("opened", error) from error
        return filesystem, path

    def _failed(self, what: str, error: Exception) -> StorageError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return StorageError(
            f"run.storage_path={self.storage_path} cannot be {what}: {reason} "
            "(choose a folder or URI with free space that you may write to)"
        )
