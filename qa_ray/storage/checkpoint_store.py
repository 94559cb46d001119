"""Where checkpoints are kept: each is copied whole, described by a manifest, and checked before it is used."""

import contextlib
import hashlib
import json
import logging
import posixpath
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from pyarrow import fs

from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import CHECKPOINTS, RunFolder

MANIFEST = "manifest.json"
"""File of a checkpoint, written last, that says what the others must be."""
CHUNK_BYTES = 8 * 2**20

logger = logging.getLogger(__name__)


class _DamagedError(StorageError):
    """A checkpoint is not what its manifest says; reading it again would not help."""


class NotOwnerError(StorageError):
    """Somebody else has gone on with the run; trying again would not help."""


@dataclass(frozen=True, slots=True)
class _File:
    """One file of a checkpoint, as it was when it was saved."""

    size: int
    sha256: str

    def fault(self, path: Path, *, verify: bool) -> str | None:
        """Say what is wrong with the file at `path`, if anything is."""
        if not path.is_file():
            return "is missing"
        size = path.stat().st_size
        if size != self.size:
            return f"has {size} bytes instead of {self.size}"
        if verify:
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != self.sha256:
                    return "has changed: its SHA-256 is not the manifest's"
        return None


class CheckpointStore:
    """The checkpoints of one run, on any filesystem that pyarrow opens; one counts once its manifest is there.

    Names sort from the oldest to the newest: step-00000012. One process at a time may publish and prune.
    """

    def __init__(self, folder: RunFolder, owned: Callable[[], bool] = lambda: True) -> None:
        """Open the run's filesystem.

        Args:
            folder: the run's.
            owned: whether this process may still write into it.

        Raises:
            StorageError: it cannot be opened.
        """
        self._folder = folder
        self._owned = owned
        self._filesystem, path = folder.filesystem()
        self._root = f"{path}/{CHECKPOINTS}"

    @property
    def local(self) -> bool:
        """Whether checkpoints are read where they lie."""
        return isinstance(self._filesystem, fs.LocalFileSystem)

    def publish(self, name: str, source: Path) -> None:
        """Copy every file below the local folder `source` into the checkpoint `name`, in place of what is there.

        Whoever is killed meanwhile leaves a folder without a manifest, which does not count.

        Raises:
            NotOwnerError: the run is not owned any more.
            StorageError: the disk is full, read-only or gone, or the store refuses.
        """
        self._check_owned()
        names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
        if not names or MANIFEST in names:
            raise ValueError(f"{source} must hold files, and no {MANIFEST} of its own")
        target = f"{self._root}/{name}"
        with self._folder.guard("written"):
            self._remove(name)
            for parent in sorted({posixpath.dirname(f"{target}/{file}") for file in names}):
                self._filesystem.create_dir(parent, recursive=True)
            files = {file: self._copy(source / file, f"{target}/{file}") for file in names}
            self._confirm(target, files)
        # Copying may have taken minutes.
        self._check_owned()
        manifest = {"files": {file: asdict(entry) for file, entry in files.items()}}
        self._folder.write(f"{CHECKPOINTS}/{name}/{MANIFEST}", json.dumps(manifest, indent=1).encode())

    def names(self) -> list[str]:
        """Return the checkpoints that have a manifest, oldest first.

        Raises:
            StorageError: the storage cannot be read.
        """
        with self._folder.guard("read"):
            names = self._folders()
            manifests = self._filesystem.get_file_info([f"{self._root}/{name}/{MANIFEST}" for name in names])
        return [name for name, info in zip(names, manifests, strict=True) if info.is_file]

    def fetch_newest(self) -> tuple[str, Path] | None:
        """Return the newest checkpoint that is whole, and a local folder that holds it; None if there is none.

        One that is damaged or cannot be read is passed over with a warning.

        Raises:
            StorageError: none is whole, and at least one might be if it could be read.
        """
        unreadable = None
        for name in reversed(self.names()):
            try:
                return name, self.fetch(name)
            except StorageError as error:
                logger.warning("%s; the checkpoint before %s is tried", error, name)
                if not isinstance(error, _DamagedError):
                    unreadable = error
        if unreadable is not None:
            raise unreadable
        return None

    def fetch(self, name: str, *, verify: bool = True) -> Path:
        """Return a local folder that holds the checkpoint: itself, or a copy in a temporary folder.

        Args:
            name: which one.
            verify: hashes the files, besides looking for each one's size.

        Raises:
            StorageError: it is damaged, or cannot be read.
        """
        try:
            return self._fetch(name, verify=verify)
        except _DamagedError as error:
            raise _DamagedError(
                f"checkpoint {name} of run.name={self._folder.name} is damaged: {error} (choose another one)"
            ) from error

    def prune(self, keep: Collection[str]) -> None:
        """Delete every checkpoint but those named, also what was left half-written; warn of what cannot be deleted."""
        try:
            with self._folder.guard("read"):
                names = [name for name in self._folders() if name not in keep]
        except StorageError as error:
            logger.warning("old checkpoints are not deleted: %s", error)
            return
        for name in names:
            try:
                self._check_owned()
                with self._folder.guard("written"):
                    self._remove(name)
            except NotOwnerError as error:
                logger.warning("old checkpoints are not deleted: %s", error)
                return
            except StorageError as error:
                logger.warning("checkpoint %s is not deleted: %s", name, error)

    def _check_owned(self) -> None:
        if not self._owned():
            raise NotOwnerError("another job or worker group has gone on with this run, which is left to it")

    def _fetch(self, name: str, *, verify: bool) -> Path:
        files = _parse(self._folder.read(f"{CHECKPOINTS}/{name}/{MANIFEST}"))
        place = self._folder.download(f"{CHECKPOINTS}/{name}")
        try:
            with self._folder.guard("read"):
                _check(place, files, verify=verify)
        except BaseException:
            if not self.local:
                shutil.rmtree(place, ignore_errors=True)
            raise
        return place

    def _folders(self) -> list[str]:
        """Names of all checkpoints, whole or not, oldest first."""
        found = self._filesystem.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def _remove(self, name: str) -> None:
        """Delete a checkpoint, if it is there."""
        path = f"{self._root}/{name}"
        if self._filesystem.get_file_info(path).type == fs.FileType.NotFound:
            return
        # First of all it must no longer count, in case that the rest is cut off.
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(f"{path}/{MANIFEST}")
        self._filesystem.delete_dir(path)

    def _copy(self, source: Path, target: str) -> _File:
        """Copy a file, and hash what was read of it on the way."""
        digest, size = hashlib.sha256(), 0
        # pyarrow would pack a .gz once more otherwise.
        with source.open("rb") as reader, self._filesystem.open_output_stream(target, compression=None) as writer:
            while chunk := reader.read(CHUNK_BYTES):
                writer.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return _File(size, digest.hexdigest())

    def _confirm(self, target: str, files: Mapping[str, _File]) -> None:
        """See that all files have arrived: older checkpoints are deleted on the strength of the new one."""
        found = self._filesystem.get_file_info([f"{target}/{file}" for file in files])
        for (file, expected), info in zip(files.items(), found, strict=True):
            if info.size != expected.size:
                raise OSError(f"{target}/{file} was written, but is not there in full")


def _parse(content: bytes | None) -> dict[str, _File]:
    """Read a manifest."""
    if content is None:
        raise _DamagedError(f"it has no {MANIFEST}, so it is not there or was never finished")
    try:
        files = {name: _File(**entry) for name, entry in json.loads(content)["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _DamagedError(f"its {MANIFEST} is malformed") from error
    if not files:
        raise _DamagedError(f"its {MANIFEST} names no files")
    for path in map(PurePosixPath, files):
        if path.is_absolute() or ".." in path.parts:
            raise _DamagedError(f"its {MANIFEST} names {path}, which is outside of it")
    return files


def _check(place: Path, files: Mapping[str, _File], *, verify: bool) -> None:
    """Compare the files of a local folder with what they must be."""
    for name, file in files.items():
        fault = file.fault(place / name, verify=verify)
        if fault is not None:
            raise _DamagedError(f"{name} {fault}")
