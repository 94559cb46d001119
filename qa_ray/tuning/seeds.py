"""The best trials over several seeds: the means of their scores, and which differences are more than noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.special import stdtrit

from qa_ray.tuning.trials import Sweep, TrialRecord

_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Ranked:
    """A trial that was repeated with other seeds."""

    record: TrialRecord
    scores: Sequence[float]
    """Of it and of those that repeat it."""
    mean: float
    half_width: float
    """Of Student's 95% interval of the mean."""
    differs: bool
    """Whether it is worse than the first one by more than chance would have it: Welch's t-test at 5%, two-sided."""


def rank(sweep: Sweep) -> list[Ranked]:
    """The trials that have several seeds, best mean first."""
    finalists = [record for record in sweep.finished() if len(sweep.seeds(record)) > 1]
    finalists.sort(key=lambda record: -sweep.objective.by.sign * sweep.mean(record))
    scores = [[one.score(sweep.objective) or 0.0 for one in sweep.seeds(record)] for record in finalists]
    return [
        Ranked(record, own, fmean(own), _half_width(variance(own) / len(own), len(own) - 1), _differ(scores[0], own))
        for record, own in zip(finalists, scores, strict=True)
    ]


def _half_width(squared_error: float, freedom: float) -> float:
    return float(stdtrit(freedom, (1 + _LEVEL) / 2)) * math.sqrt(squared_error)


def _differ(some: Sequence[float], others: Sequence[float]) -> bool:
    errors = [variance(scores) / len(scores) for scores in (some, others)]
    difference = abs(fmean(some) - fmean(others))
    if not sum(errors):
        return difference > 0
    parts = (error**2 / (len(scores) - 1) for error, scores in zip(errors, (some, others), strict=True))
    return difference > _half_width(sum(errors), sum(errors) ** 2 / sum(parts))
