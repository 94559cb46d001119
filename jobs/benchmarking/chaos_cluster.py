"""What the chaos benchmark works on: a cluster of several Ray nodes, and a training job in a terminal of its own."""

import fcntl
import json
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
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil  # type: ignore[import-untyped]
import torch
from ray.cluster_utils import Cluster
from transformers import AutoModelForQuestionAnswering, BertConfig, BertTokenizerFast

from benchmarking.chaos_outcome import name_of, step_of
from qa_ray.locations import resolve
from qa_ray.training.store import CHECKPOINTS, MANIFEST

WORKERS = 2
# Ray's own settings would notice a lost node after half a minute.
_NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
_STORE_BYTES = 100 * 2**20
_SAMPLE = "package://qa_ray/data/sample/{}.json"
_BAR = re.compile(r"train: +\d+%\|.*\| *(\d+)/(\d+) ")
_RESUMED = re.compile(r"going on from the checkpoint (\S+)")
_BEGUN = re.compile(r"step 0: exact_match")
_FORWARDED = re.compile(r"\(\w+ pid=\d+")
_EVALUATED = re.compile(r"step \d+: exact_match")


def use_folder(place: Path) -> None:
    """Let this process, its cluster and its jobs keep their temporary files in `place`."""
    (place / "tmp").mkdir()
    os.environ["TMPDIR"] = str(place / "tmp")
    # Short, since the paths of Ray's sockets are limited.
    os.environ["RAY_TMPDIR"] = str(place)


def make_inputs(place: Path) -> list[str]:
    """Write a small model with random weights and small data; returns the command line's part that names them."""
    texts = [_write_questions(place, name, paragraphs) for name, paragraphs in (("train", 4), ("validation", 12))]
    tokenizer = BertTokenizerFast().train_new_from_iterator([" ".join(texts)], 1000)
    tokenizer.save_pretrained(place / "model")
    # Large enough that writing and storing a checkpoint take some time.
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    AutoModelForQuestionAnswering.from_config(shape).save_pretrained(place / "model")
    named = {"model.name": "model", "data.train": "train.json", "data.validation": "validation.json"}
    flags = [word for name, file in named.items() for word in (f"--{name}", str(place / file))]
    return [*flags, "--data.hub", "None"]


def _write_questions(place: Path, name: str, paragraphs: int) -> str:
    """Take as many paragraphs of each theme of the sample, and return their text."""
    whole = json.loads(Path(resolve(_SAMPLE.format(name))).read_text(encoding="utf-8"))
    data = [theme | {"paragraphs": theme["paragraphs"][:paragraphs]} for theme in whole["data"]]
    text = json.dumps(whole | {"data": data})
    (place / f"{name}.json").write_text(text, encoding="utf-8")
    return " ".join(paragraph["context"] for theme in data for paragraph in theme["paragraphs"])


class Nodes:
    """A head without CPUs, and nodes with room for one worker each; driven from the main thread alone."""

    def __init__(self, place: Path) -> None:
        """Start them, with their files in `place`."""
        self._place = place
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        self._cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": _NOTICE})
        self._nodes = [self._add() for _ in range(WORKERS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        # At once: nodes would take half a minute to take their leave.
        _kill(self._processes())
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        """What a job joins."""
        return str(self._cluster.address)

    def workers(self) -> list[psutil.Process]:
        """The processes that train, by their process id."""
        return [process for process in self._processes() if "RayTrainWo" in process.info["name"]]

    def __len__(self) -> int:
        return len(self._nodes)

    def kill(self, number: int) -> None:
        """Lose a node and all that runs on it at once, and put a new one in its place."""
        node = self._nodes.pop(number)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        _kill([raylet, *raylet.children(recursive=True)])
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)

    def _processes(self) -> list[psutil.Process]:
        """All processes of this cluster, and of no other on the machine."""
        found = []
        for process in psutil.process_iter(["name", "pid"]):
            try:
                belongs = process.environ().get("RAY_TMPDIR") == str(self._place) and process.pid != os.getpid()
                found += [process] if belongs else []
            except psutil.Error:
                continue
        return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue


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
