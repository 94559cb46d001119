"""What a sweep has to show when it ends."""

from collections.abc import Mapping
from dataclasses import dataclass

from qa_ray.runs.resume import TrainResult
from qa_ray.tuning.history import Goal, TrialRecord
from qa_ray.tuning.options import TuneConfig
from qa_ray.tuning.space import Parameters, Space


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A sweep and its trials, in the order in which they were begun."""

    name: str
    folder: str
    """Path or URI of the sweep's folder."""
    space: Space
    defaults: Parameters
    """The configuration's own values of the space's fields."""
    tune: TuneConfig
    goal: Goal
    epochs: int
    """Epochs of a trial that is not stopped."""
    trials: list[TrialRecord]
    best: TrialRecord | None
    """The finished trial that scored best."""
    facts: Mapping[str, str]
    """What else is told at the top of the report, by name."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A sweep that has ended."""

    sweep: Sweep
    best: TrainResult
    """The run of the best trial."""
    record: str
    """How to look at the tracker's record."""
    report: str
    """Path or URI of the picture report."""
