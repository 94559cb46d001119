"""The trials of a sweep: what is kept of each in the sweep's folder, and what a sweep shows of them when it ends."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Any

from qa_ray.config.policies import BestBy
from qa_ray.pages.view import Report
from qa_ray.runs.resume import TrainResult
from qa_ray.storage.run_folder import RunFolder
from qa_ray.storage.strict_json import to_json
from qa_ray.tracking.metrics import prefix_of
from qa_ray.tuning.options import SweepConfig
from qa_ray.tuning.space import Parameters, Space, read_space

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
class Objective:
    """The validation metric that trials are compared by."""

    by: BestBy
    share: float = 1.0
    """Of the validation questions, on which trials are measured."""

    @property
    def metric(self) -> str:
        """Its name among the metrics of an evaluation."""
        return self.name(self.by)

    def name(self, by: BestBy) -> str:
        """Name of a validation metric among those of an evaluation."""
        return prefix_of(self.share) + by

    @property
    def direction(self) -> str:
        """What Optuna is to do with it."""
        return "maximize" if self.by.sign > 0 else "minimize"

    def better(self, score: float, other: float) -> bool:
        """Whether a score is better than another."""
        return self.by.sign * score > self.by.sign * other

    def best(self, scores: Iterable[float]) -> float:
        """The best of some scores."""
        return max(scores, key=lambda score: self.by.sign * score)


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial."""

    number: int
    parameters: Parameters
    status: Status = Status.RUNNING
    reason: str | None = None
    """Why it was pruned or stopped, or has failed."""
    evaluations: dict[float, dict[str, float]] = field(default_factory=dict)
    """Validation metrics, those that were finite, by the epochs trained: half an epoch is 0.5."""
    began: float = 0.0
    """When it was begun first, in seconds since 1970."""
    ended: float = 0.0
    """When it was last heard of, in seconds since 1970."""
    seconds: float = 0.0
    """Time that was spent on it, without pauses of the sweep."""
    seconds_to_first_step: float | None = None
    """From its last beginning to the first optimizer step."""
    repeats: int | None = None
    """Number of the trial whose values it has, with another seed; None for one that was searched."""

    @property
    def name(self) -> str:
        """Name of its run."""
        return f"trial-{self.number:03d}"

    @property
    def epochs(self) -> float:
        """Epochs that were trained before the last evaluation."""
        return max(self.evaluations, default=0)

    def scores(self, objective: Objective) -> dict[float, float]:
        """What it scored at each evaluation, by epoch, but those at which the metric was not finite."""
        metric = objective.metric
        return {epoch: metrics[metric] for epoch, metrics in self.evaluations.items() if metric in metrics}

    def best_epoch(self, objective: Objective) -> float | None:
        """The first epoch, or part of one, that scored best; None before the first score."""
        scores = self.scores(objective)
        return max(scores, key=lambda epoch: objective.by.sign * scores[epoch], default=None)

    def score(self, objective: Objective) -> float | None:
        """The best score of any evaluation."""
        scores = self.scores(objective)
        return objective.best(scores.values()) if scores else None


def read_trials(folder: RunFolder) -> dict[int, TrialRecord]:
    """The trials that a sweep's folder holds, by number.

    Raises:
        StorageError: it cannot be read.
    """
    return {fields["number"]: _record(fields) for fields in json.loads(folder.read(TRIALS) or "[]")}


def write_trials(folder: RunFolder, trials: Iterable[TrialRecord]) -> None:
    """Write what `read_trials` reads.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder.write(TRIALS, to_json([dataclasses.asdict(record) for record in trials], indent=1).encode())


def _record(fields: dict[str, Any]) -> TrialRecord:
    """A trial from what JSON made of it: there, keys are texts."""
    evaluations = {float(epoch): metrics for epoch, metrics in fields["evaluations"].items()}
    return TrialRecord(**fields | {"status": Status(fields["status"]), "evaluations": evaluations})


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep and its trials, in the order in which they were begun."""

    config: SweepConfig
    trials: list[TrialRecord]

    @property
    def folder(self) -> RunFolder:
        """Where it is kept."""
        return RunFolder.locate(self.config.run)

    @property
    def space(self) -> Space:
        """What is searched."""
        return read_space(self.config.space)

    @property
    def objective(self) -> Objective:
        """What trials are compared by."""
        return Objective(self.config.evaluate.best_by, self.config.evaluate.share)

    @property
    def best(self) -> TrialRecord | None:
        """The finished trial that scored best, others have no model: of those with the best mean over several seeds.

        The first of equals.
        """
        finalists = self.finished(most=self.config.tune.finalists)
        repeated = [one for one in finalists if len(self.seeds(one)) > 1]
        chosen = max(repeated or finalists, key=lambda one: self.mean(one) * self.objective.by.sign, default=None)
        return chosen and max(self.seeds(chosen), key=self._merit)

    def finished(self, most: int | None = None) -> list[TrialRecord]:
        """The finished ones among the trials that were searched, best first, and at `most` so many."""
        finished = [one for one in self.evaluated if one.status is Status.FINISHED]
        return sorted(finished, key=self._merit, reverse=True)[:most]

    def seeds(self, record: TrialRecord) -> list[TrialRecord]:
        """A trial with those that repeat it, as far as they have finished with a score."""
        repeats = [one for one in self.trials if one.repeats == record.number and one.status is Status.FINISHED]
        return [record, *(one for one in repeats if one.scores(self.objective))]

    def mean(self, record: TrialRecord) -> float:
        """Mean of the best scores of a trial and of those that repeat it."""
        return fmean(one.score(self.objective) or 0.0 for one in self.seeds(record))

    def _merit(self, record: TrialRecord) -> float:
        return self.objective.by.sign * (record.score(self.objective) or 0.0)

    @property
    def searched(self) -> list[TrialRecord]:
        """Trials that repeat no other."""
        return [record for record in self.trials if record.repeats is None]

    @property
    def default(self) -> TrialRecord | None:
        """The trial of the configuration's own values, if there is one."""
        return self.trials[0] if self.trials and self.config.tune.include_default else None

    @property
    def evaluated(self) -> list[TrialRecord]:
        """Trials that have at least one score, and repeat no other."""
        return [record for record in self.searched if record.scores(self.objective)]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A sweep that has ended."""

    sweep: Sweep
    best: TrainResult
    """The run of the best trial."""
    record: str
    """How to look at the tracker's record."""
    report: Report
    """The page with pictures of it."""

    @property
    def scores(self) -> dict[str, float]:
        """Validation metrics of the best trial's model."""
        return self.best.scores

    @property
    def folder(self) -> str:
        """Path or URI of the sweep's folder; that of the best model's run is best.folder."""
        return self.sweep.folder.uri
