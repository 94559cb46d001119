"""A run's folder, on a local disk or on any filesystem that pyarrow opens."""

import contextlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

from pyarrow import ArrowException, fs

from qa_ray.errors import StorageError
from qa_ray.locations import is_local
from qa_ray.operation import RunConfig

OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
"""pyarrow's names of the filesystems where a file appears when it is whole, and where moving means copying."""


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

    @property
    def uri(self) -> str:
        """Absolute path or URI of this run's folder."""
        if is_local(self.storage_path):
            return f"{self.storage_path.rstrip('/')}/{self.name}"
        place, mark, query = self.storage_path.partition("?")
        return f"{place.rstrip('/')}/{quote(self.name)}{mark}{query}"

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
            try:
                # pyarrow would unpack a .gz otherwise.
                stream = filesystem.open_input_stream(f"{path}/{name}", compression=None)
            except FileNotFoundError:
                return None
            with stream:
                return bytes(stream.readall())

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the run; whoever is killed meanwhile leaves the old or the new content, never half of it.

        Raises:
            StorageError: the disk is full, read-only or gone.
        """
        filesystem, folder = self.filesystem()
        path = f"{folder}/{name}"
        atomic = filesystem.type_name in OBJECT_STORES
        with self.guard("written"):
            filesystem.create_dir(posixpath.dirname(path), recursive=True)
            with filesystem.open_output_stream(path if atomic else f"{path}.part", compression=None) as stream:
                stream.write(content)
            if not atomic:
                filesystem.move(f"{path}.part", path)

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

    @contextlib.contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Turn an error of the filesystem into a StorageError of one line, which says what cannot be done."""
        try:
            yield
        except (ArrowException, OSError) as error:
            raise StorageError(
                f"run.storage_path={self.storage_path} cannot be {what}: {_reason(error)} "
                "(it must be a folder or URI that can be reached, has free space, and that you may read and write)"
            ) from error


def _reason(error: Exception) -> str:
    """What went wrong; Python's own errors keep the file apart from the reason."""
    reason = str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(reason.split())
