"""The trials of a sweep as its folder keeps them: what a sweep that lost its driver goes on from."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from qa_ray.config.policies import BestBy
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.metrics import EVAL_PREFIX
from qa_ray.tuning.space import Parameters

TRIALS = "trials.json"
"""All trials, in the sweep's folder."""
TRIAL_FOLDERS = "trials"
"""Holds the run folder of each trial, in the sweep's folder."""


class Status(StrEnum):
    """What became of a trial."""

    RUNNING = "running"
    """Begun; where no process works on it any more, it goes on with the sweep."""
    FINISHED = "finished"
    STOPPED = "stopped"
    """Ended early by the scheduler."""
    PRUNED = "pruned"
    """Never begun: its values cannot work."""
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing is left to be done."""
        return self is not Status.RUNNING


@dataclass(frozen=True, slots=True)
class Goal:
    """The validation metric that trials are compared by."""

    by: BestBy

    @property
    def metric(self) -> str:
        """Its name among the metrics of an evaluation."""
        return EVAL_PREFIX + self.by

    @property
    def mode(self) -> str:
        """Whether more or less of it is better: max or min."""
        return "max" if self.by.sign > 0 else "min"

    def best(self, scores: list[float]) -> float:
        """The best of some scores."""
        return max(scores, key=lambda score: self.by.sign * score)

    def better(self, score: float, other: float) -> bool:
        """Whether a score is better than another."""
        return self.by.sign * score > self.by.sign * other


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial."""

    number: int
    parameters: Parameters
    status: Status
    reason: str | None = None
    """Why it was pruned or stopped, or has failed."""
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)
    """Validation metrics by epoch."""
    began: float = 0.0
    """When it was begun first, in seconds since 1970."""
    ended: float = 0.0
    """When it was last heard of, in seconds since 1970."""
    seconds: float = 0.0
    """Time that was spent on it, without pauses of the sweep."""
    seconds_to_first_step: float | None = None
    """From its last beginning to the first optimizer step."""

    @property
    def name(self) -> str:
        """Name of its run."""
        return f"trial-{self.number:03d}"

    @property
    def epochs(self) -> int:
        """Epochs that were evaluated."""
        return max(self.evaluations, default=0)

    def best_epoch(self, goal: Goal) -> int | None:
        """The epoch that scored best; None before the first evaluation."""
        scores = {epoch: metrics[goal.metric] for epoch, metrics in self.evaluations.items()}
        if not scores:
            return None
        best = goal.best(list(scores.values()))
        return next(epoch for epoch, score in scores.items() if score == best)

    def score(self, goal: Goal) -> float | None:
        """The best score of any epoch."""
        epoch = self.best_epoch(goal)
        return None if epoch is None else self.evaluations[epoch][goal.metric]


class History:
    """All trials of a sweep; every change is written at once."""

    def __init__(self, folder: RunFolder) -> None:
        """Read what the sweep's folder holds.

        Raises:
            StorageError: it cannot be read.
        """
        self._folder = folder
        self._records: dict[int, TrialRecord] = {}
        for fields in json.loads(folder.read(TRIALS) or "[]"):
            record = _record(fields)
            self._records[record.number] = record

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> TrialRecord:
        return self._records[number]

    def put(self, record: TrialRecord) -> None:
        """Keep a new or a changed trial.

        Raises:
            StorageError: the folder cannot be written.
        """
        self._records[record.number] = record
        content = [dataclasses.asdict(one) for one in self]
        self._folder.write(TRIALS, json.dumps(content, indent=1).encode())

    def change(self, number: int, **changes: Any) -> TrialRecord:
        """Change a trial, and return it as it is then."""
        record = dataclasses.replace(self[number], **changes)
        self.put(record)
        return record

    def best(self, goal: Goal) -> TrialRecord | None:
        """The finished trial that scored best: others have no model."""
        scored = [(record, record.score(goal)) for record in self if record.status is Status.FINISHED]
        best: tuple[TrialRecord, float] | None = None
        for record, score in scored:
            if score is not None and (best is None or goal.better(score, best[1])):
                best = record, score
        return best[0] if best else None


def _record(fields: dict[str, Any]) -> TrialRecord:
    """A trial from what JSON made of it: there, keys are texts and tuples are lists."""
    evaluations = {int(epoch): metrics for epoch, metrics in fields["evaluations"].items()}
    parameters = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields["parameters"].items()
    }
    return TrialRecord(
        **fields | {"status": Status(fields["status"]), "evaluations": evaluations, "parameters": parameters}
    )
