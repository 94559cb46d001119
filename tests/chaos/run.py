"""The runs that faults are injected into: their inputs, their command line, and a job that is followed."""

import dataclasses
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from families import FAMILIES
from ray_runs import command, metrics_of

from chaos.memory import SHORTAGE
from qa_ray.benchmark.workload import Workload
from qa_ray.cli.arguments import parse_run
from qa_ray.data.batching import plan_epoch
from qa_ray.locations import resolve
from qa_ray.training.snapshot import enter

# Large enough that writing and storing a checkpoint take some time.
_SHAPE = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
_PARAGRAPHS = {"train": 3, "validation": 6}
CHANGES: dict[str, object] = {
    "window.max-length": 192,
    "window.stride": 64,
    "batch.size": 8,
    "evaluate.max-tokens-per-device": 1024,
    "evaluate.per-epoch": 2,
    "checkpoint.every-steps": 4,
    "checkpoint.keep": 3,
    "cluster.local-cpus": None,
    "cluster.max-failures": -1,
}


def make_inputs(place: Path) -> None:
    """Write a small model with random weights, and some paragraphs of each theme of the sample, into `place`."""
    bert = FAMILIES["bert"]
    dataclasses.replace(bert, settings=bert.settings | _SHAPE).save(place / "tiny")
    for name, paragraphs in _PARAGRAPHS.items():
        whole = json.loads(Path(resolve(f"package://qa_ray/data/sample/{name}.json")).read_text(encoding="utf-8"))
        data = [theme | {"paragraphs": theme["paragraphs"][:paragraphs]} for theme in whole["data"]]
        (place / f"{name}.json").write_text(json.dumps(whole | {"data": data}), encoding="utf-8")


def job_command(
    place: Path, name: str, address: str, epochs: int, *, server: str | None = None, elastic: bool = False
) -> list[str]:
    """The command line of a run on what `make_inputs` wrote, in PLACE/runs; `server` is a tracking server's address."""
    changes = CHANGES | {"cluster.address": address, "train.epochs": epochs}
    if elastic:
        changes |= {"cluster.num-workers": [1, 2], "cluster.elastic-interval-s": 1.0}
    python, _, *words, untracked = command(place, name, changes)
    tracking = [untracked] if server is None else ["--tracking.uri", server, "--tracking.no-log-model"]
    return [python, str(Path(__file__).with_name("job.py")), *words, *tracking]


def planned(words: list[str]) -> dict[str, Any]:
    """What the plan alone foretells for a command line's run, in the form of `trained`."""
    config = parse_run(words[2:]).named()
    lengths = Workload.read(config, str(config.data.train)).collator.windows.length
    ledger, steps = "", 0
    for epoch in range(config.train.epochs):
        for batch in plan_epoch(lengths, config.batch, seed=config.train.seed, epoch=epoch).batches():
            ledger, steps = enter(ledger, batch), steps + 1
    return {"ledger": ledger, "steps": list(range(1, steps + 1))}


def trained(run: Path) -> dict[str, Any]:
    """Digest of the batches that a run has trained, and the steps that it has recorded."""
    steps = [line["step"] for line in metrics_of(run) if line["phase"] == "train"]
    return {"ledger": json.loads((run / "result.json").read_text(encoding="utf-8"))["ledger"], "steps": steps}


@dataclass(slots=True)
class Group:
    """A group of workers that began to train."""

    step: int
    """It went on from here."""
    before: int
    """Newest step until then."""
    seen: float
    """When it was heard of, in seconds since 1970."""
    first_step: float | None = None
    """When it made its first step."""


class Job:
    """A driver in a process of its own.

    Attributes:
        step: newest step, which lags by up to a second.
        evaluating: whether the run is evaluated, with the same lag.
        stepped_at: when the newest step was made, in seconds since 1970.
        groups: groups of workers so far.
    """

    def __init__(self, words: list[str], place: Path, shortage: Path | None = None) -> None:
        """Start it, with its output in `place`; see `memory` for `shortage`, without which memory suffices."""
        self.step, self.evaluating, self.stepped_at = 0, False, 0.0
        self.groups: list[Group] = []
        self._said = place / "said"
        self._rest = ""
        with (place / "events").open("w") as events, self._said.open("w") as said:
            # A session of its own: a Ctrl-C is this process's affair.
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=events,
                stderr=said,
                start_new_session=True,
                env=os.environ | ({SHORTAGE: str(shortage)} if shortage else {}),
            )
        self._events = (place / "events").open(encoding="utf-8")

    def poll(self) -> bool:
        """Read what the job has reported; returns whether it is still there."""
        alive = self.process.poll() is None
        *lines, self._rest = (self._rest + self._events.read()).split("\n")
        for line in lines:
            if line.startswith("{"):
                self._take(json.loads(line))
        return alive

    def kill(self) -> None:
        """End it without a warning."""
        self.process.kill()
        self.process.wait()

    def last_words(self) -> list[str]:
        """What it said last."""
        return self._said.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]

    def _take(self, event: dict[str, Any]) -> None:
        if "restart" in event:
            self.groups.append(Group(event["restart"], self.step, time.time()))
            self.step, self.evaluating = event["restart"], False
            return
        self.evaluating = event["phase"] == "evaluate" and not event["measured"]
        self.step = event["step"]
        if event["phase"] == "train" and event["step"] > self.groups[-1].step:
            self.stepped_at = event["time"]
            self.groups[-1].first_step = self.groups[-1].first_step or event["time"]
