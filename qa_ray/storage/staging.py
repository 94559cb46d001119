"""Where checkpoints stand on a node until they are stored: below the system's temporary folder, open to nobody else."""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import RunFolder

_HALF = ".part"


def private_folder() -> Path:
    """The user's own folder among the temporary ones, made if need be.

    Its name can be guessed, so that what waits in it is found again: whoever made it first must be this user.

    Raises:
        StorageError: somebody else can write or redirect it, or it cannot be made.
    """
    place = _parent()
    with _guarded(place):
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise StorageError(
            f"{place} must be a folder of your own that nobody else can open (chmod 700): checkpoints stand there "
            "until they are stored. Find out who made it, and remove it, or set TMPDIR to a folder of your own"
        )
    return place


def staging_place(folder: RunFolder) -> Path:
    """Where a run's checkpoints stand on this node until they are stored: a folder for each worker group."""
    return _parent() / hashlib.sha256(folder.uri.encode()).hexdigest()[:16]


def _parent() -> Path:
    return Path(tempfile.gettempdir()) / f"qa_ray-{os.getuid()}"


@contextlib.contextmanager
def _guarded(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"a checkpoint cannot be written to {place}: {error.strerror or error} (make room there, or set TMPDIR to "
            "a folder with free space)"
        ) from error


def discard(checkpoint: Path) -> None:
    """Delete a checkpoint that was made; whoever is killed meanwhile leaves nothing that looks whole."""
    half = checkpoint.with_name(f"{checkpoint.name}{_HALF}")
    with contextlib.suppress(OSError):
        checkpoint.rename(half)
    shutil.rmtree(half, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Staging:
    """What one worker group keeps on this node of a run."""

    folder: RunFolder
    group: str
    """Its name; those of later groups sort behind it."""

    @property
    def place(self) -> Path:
        """The group's own folder."""
        return staging_place(self.folder) / self.group

    def make(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Let `fill` write the files of a checkpoint, and return their folder, which has its name once it is whole.

        Raises:
            StorageError: there is no room, or see `private_folder`.
        """
        whole, half = self.place / name, self.place / f"{name}{_HALF}"
        private_folder()
        try:
            with _guarded(self.place):
                discard(whole)
                half.mkdir(parents=True)
                fill(half)
                half.rename(whole)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
        return whole

    @property
    def fetched(self) -> Path:
        """Holds a copy of the checkpoint that the group goes on from, for every process of this node."""
        return self.place / "fetched"

    def keep(self, copy: Path) -> None:
        """Move a copy of a checkpoint to `fetched`.

        Raises:
            StorageError: it cannot be moved, or see `private_folder`.
        """
        private_folder()
        try:
            with _guarded(self.place):
                self.place.mkdir(parents=True, exist_ok=True)
                copy.rename(self.fetched)
        except StorageError:
            # Where nodes share a disk, another one has been faster.
            if not self.fetched.exists():
                raise
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def waiting(self) -> list[Path]:
        """The whole checkpoints that earlier groups left on this node.

        Raises:
            StorageError: see `private_folder`.
        """
        private_folder()
        found = [path for group in self._others() for path in group.glob("step-*")]
        return sorted(path for path in found if path.suffix != _HALF)

    def adopt(self, checkpoint: Path) -> Path | None:
        """Make a checkpoint that waits this group's own; None if its group, which lives on for a while, deleted it.

        Raises:
            StorageError: it cannot be moved.
        """
        own = self.place / checkpoint.name
        with _guarded(self.place):
            self.place.mkdir(parents=True, exist_ok=True)
            try:
                checkpoint.rename(own)
            except FileNotFoundError:
                return None
        return own

    def clear_others(self) -> None:
        """Delete all that earlier groups left on this node: what killed processes had not written to its end, too."""
        for group in self._others():
            shutil.rmtree(group, ignore_errors=True)

    def clear(self) -> None:
        """Delete all that the group keeps here."""
        shutil.rmtree(self.place, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.place.parent.rmdir()

    def _others(self) -> list[Path]:
        # A group that was slow to start must not take anything from the one that came after it.
        return [path for path in self.place.parent.glob("*") if path.name < self.group]
