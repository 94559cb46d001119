"""What waits to be recorded, on a local disk: it survives the process that wrote it.

A file holds a JSON object a line: an item with its number, or the numbers of items that are done with. Nothing in it is
changed, so a process that is killed meanwhile leaves at most half a line at its end. Whoever works on a file holds a
lock on it, which the system takes back when the process ends: a file without a lock is left over from an earlier one.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

logger = logging.getLogger(__name__)

Item = dict[str, Any]
"""What is to be recorded; `kind` says what it is."""


class Spool:
    """One file of waiting items, locked by this process until it is closed.

    Attributes:
        path: the file; the folder of the same name without its ending holds copies of files that are to be sent.
        items: what waited when the file was opened, by number.
    """

    def __init__(self, path: Path, *, new: bool) -> None:
        """Open and lock a file.

        Raises:
            FileNotFoundError: it is gone.
            BlockingIOError: another process works on it.
            OSError: it cannot be written.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT | os.O_EXCL if new else 0), 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._descriptor).st_nlink == 0:
                raise FileNotFoundError(f"{path} was removed by another process")
        except OSError:
            os.close(self._descriptor)
            raise
        self.items = _read(path)
        self._next = max(self.items, default=-1) + 1
        # The last writer may have been killed in the middle of a line, or the disk have been full.
        self._torn = not new
        self._said = False

    @classmethod
    def create(cls, folder: Path, owner: str) -> Self:
        """Start a file; `owner` is the part of its name by which `left_over` finds it."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(folder / f"{owner}-{uuid.uuid4().hex[:8]}.jsonl", new=True)

    @classmethod
    def left_over(cls, folder: Path, owner: str, *, patience_s: float = 0.0) -> list[Self]:
        """Open the files of owners whose names begin with `owner`, except those that a living process works on.

        Args:
            folder: where the files are.
            owner: the beginning of the names.
            patience_s: waits so long for a process that works on one.
        """
        deadline = time.monotonic() + patience_s
        found = (cls._open(path, deadline) for path in sorted(folder.glob(f"{owner}*.jsonl")))
        return [spool for spool in found if spool]

    @classmethod
    def _open(cls, path: Path, deadline: float) -> Self | None:
        while True:
            try:
                return cls(path, new=False)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return None
                time.sleep(0.1)
            except OSError:
                return None

    @property
    def owner(self) -> str:
        """The owner's name."""
        return self.path.stem.rpartition("-")[0]

    def add(self, items: Sequence[Item]) -> list[int]:
        """Write items down, and return their numbers; a disk that fails is told of once, and done without."""
        numbers = list(range(self._next, self._next + len(items)))
        self._next += len(items)
        self._write(item | {"number": number} for number, item in zip(numbers, items, strict=True))
        return numbers

    def done(self, numbers: Iterable[int], *, empty: bool) -> None:
        """Note that items need not wait any more; `empty` says that none is left."""
        if empty:
            os.ftruncate(self._descriptor, 0)
        else:
            self._write([{"done": list(numbers)}])

    def keep_copy(self, folder: Path) -> Path:
        """Copy a folder beside the file, and return the copy; where the disk fails, the folder itself.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        target = self.path.with_suffix("") / uuid.uuid4().hex
        try:
            shutil.copytree(folder, target)
        except (OSError, shutil.Error) as error:
            if not folder.is_dir():
                raise
            self._say(error)
            shutil.rmtree(target, ignore_errors=True)
            return folder
        return target

    def drop_copy(self, folder: Path) -> None:
        """Remove a copy that `keep_copy` made."""
        if folder.parent == self.path.with_suffix(""):
            shutil.rmtree(folder, ignore_errors=True)

    def close(self, *, empty: bool) -> None:
        """Release the file, and remove it if nothing waits in it."""
        if empty:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(self.path.with_suffix(""), ignore_errors=True)
        os.close(self._descriptor)

    def _write(self, lines: Iterable[Item]) -> None:
        content = "".join(json.dumps(line) + "\n" for line in lines)
        content = "\n" + content if self._torn else content
        try:
            self._torn = os.write(self._descriptor, content.encode()) < len(content)  # JSON is ASCII here
        except OSError as error:
            self._torn = True
            self._say(error)

    def _say(self, error: Exception) -> None:
        if not self._said:
            logger.warning("%s cannot be written (%s): what MLflow does not take now may be lost", self.path, error)
        self._said = True


def _read(path: Path) -> dict[int, Item]:
    items: dict[int, Item] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            content = json.loads(line)
            for number in content.get("done", ()):
                items.pop(number, None)
            if "number" in content:
                items[content.pop("number")] = content
    return items
