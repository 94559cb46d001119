"""A training job of the chaos benchmark, in a terminal of its own, and what it lets others see of itself."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarking.chaos_outcome import name_of, step_of
from qa_ray.storage.checkpoint_store import MANIFEST
from qa_ray.storage.layout import CHECKPOINTS

_BAR = re.compile(r"train: +\d+%\|.*\| *(\d+)/(\d+) ")
_RESUMED = re.compile(r"going on from the checkpoint (\S+)")
_BEGUN = re.compile(r"step 0: exact_match")
_FORWARDED = re.compile(r"\(\w+ pid=\d+")
_EVALUATED = re.compile(r"step \d+: exact_match")


@dataclass(slots=True)
class Group:
    """A group of workers that began to train, as the job's terminal showed it."""

    checkpoint: str | None
    """Name of the one that it went on from."""
    began: float
    """Monotonic clock."""
    before: int
    """Newest step that the job had shown until then."""
    first_step: float | None = None
    """When its first step was shown."""

    @property
    def resumed(self) -> int:
        """Step that it went on from."""
        return step_of(self.checkpoint) if self.checkpoint else 0


@dataclass(slots=True)
class Screen:
    """What a job has shown on its terminal."""

    step: int = 0
    """Newest step of the progress bar, which lags by up to half a second."""
    evaluating: bool = False
    groups: list[Group] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """All but the states of bars."""
    _rest: str = ""

    def feed(self, text: str) -> None:
        """Take what was written."""
        *lines, self._rest = re.split(r"[\r\n]+", self._rest + text)
        for line in lines:
            self._read(line)
        # A bar's newest state is not ended by anything until the next one comes.
        self._read(self._rest, whole=False)

    def _read(self, line: str, *, whole: bool = True) -> None:
        if bar := _BAR.search(line):
            self._show(int(bar[1]))
        elif "evaluate: " in line:
            self.evaluating = True
        elif whole and _FORWARDED.search(line):
            # Ray repeats there what workers log themselves.
            self.said += [] if "PlacementGroupCleaner" in line else [line]
        elif whole and line.strip():
            self.said.append(line.strip())
            if _EVALUATED.search(line):
                self.evaluating = False
            resumed = _RESUMED.search(line)
            if resumed or _BEGUN.search(line):
                group = Group(resumed[1] if resumed else None, time.monotonic(), self.step)
                self.step, self.evaluating = group.resumed, False
                self.groups.append(group)

    def _show(self, step: int) -> None:
        if self.groups and step != self.step:
            self.step = step
            self.groups[-1].first_step = self.groups[-1].first_step or time.monotonic()


class Job:
    """A driver in a process of its own, whose terminal is read along."""

    def __init__(self, command: list[str]) -> None:
        """Start it."""
        self.screen = Screen()
        self._terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 240, 0, 0))
        # A session of its own: a Ctrl-C is this process's affair.
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        """Whether the process is gone and all that it showed is read."""
        return self.process.poll() is not None and not self._reader.is_alive()

    def kill(self) -> None:
        """End it without a warning."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        try:
            while content := os.read(self._terminal, 65536):
                self.screen.feed(content.decode(errors="replace"))
        except OSError:
            pass  # how a terminal says that its last writer is gone
        finally:
            os.close(self._terminal)


@dataclass(frozen=True, slots=True)
class Traces:
    """What a run's checkpoints on their way leave on the disk."""

    staging: Path
    """Folder below which workers write them."""
    stored: Path
    """Folder to which they are copied."""

    @classmethod
    def of(cls, place: Path, run: Path) -> "Traces":
        """Those of the run in the folder `run`."""
        return cls(place / "tmp", run / CHECKPOINTS)

    def newest_step(self) -> int:
        """Step of the newest checkpoint, whole or not; 0 if there is none."""
        return max((step_of(path.name) for path in (*self._staged(), *self.stored.glob("step-*"))), default=0)

    def under_way(self) -> "UnderWay":
        """What is being done with a checkpoint now."""
        written = stored = evaluated = False
        for staged in self._staged():
            named = self.stored / staged.name
            targets = [target for target in (named, named.with_name(name_of(step_of(named.name)))) if target.is_dir()]
            evaluated |= staged.name != name_of(step_of(staged.name))
            if any(not (target / MANIFEST).exists() for target in targets):
                stored = True
            elif not targets or evaluated:
                written = True
        return UnderWay(written, stored, evaluated)

    def _staged(self) -> list[Path]:
        # Each job has a folder of its own there.
        return list(self.staging.glob("qa_ray-*/*/step-*"))


class UnderWay(NamedTuple):
    """What is being done with a run's checkpoints."""

    written: bool
    stored: bool
    evaluated: bool
    """Whether it is one of an epoch's end, which comes after an evaluation."""
