"""The course of a sweep, without Ray: which trial is next, and what is noted and told of each."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from qa_ray.tuning.options import SweepConfig
from qa_ray.tuning.sampler import propose
from qa_ray.tuning.space import Parameters, defaults
from qa_ray.tuning.trials import Status, Sweep, TrialRecord, read_trials, write_trials

logger = logging.getLogger(__name__)

Feasibility = Callable[[Parameters], str | None]
"""Says why a point could not run, or None."""


class Study:
    """Gives out trials, and keeps what becomes of them in the sweep's folder, at once.

    Attributes:
        config: the sweep's settings.
        folder: the sweep's folder.
    """

    def __init__(self, config: SweepConfig) -> None:
        """Go on from the trials in the sweep's folder, if there are any.

        Raises:
            StorageError: the folder cannot be read.
        """
        self.config = config
        sweep = Sweep(config, [])
        self.folder, self._objective = sweep.folder, sweep.objective
        self._defaults = defaults(config.base, sweep.space)
        self._trials = read_trials(self.folder)
        self._given: set[int] = set()
        self._heard: dict[int, float] = {}

    @property
    def sweep(self) -> Sweep:
        """What there is to show now."""
        return Sweep(self.config, list(self._trials.values()))

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be tried."""
        return all(record.status.ended for record in self._trials.values()) and self._next_point() is None

    def next_trial(self, why_infeasible: Feasibility) -> TrialRecord | None:
        """A trial to be begun, or one to go on with; None if there is none left."""
        left_over = (one for one in self._trials.values() if not one.status.ended and one.number not in self._given)
        record = next(left_over, None) or self._new_trial(why_infeasible)
        if record is not None:
            self._given.add(record.number)
        return record

    def _new_trial(self, why_infeasible: Feasibility) -> TrialRecord | None:
        while (point := self._next_point()) is not None:
            record = TrialRecord(len(self._trials), point, began=time.time())
            self._put(record)
            reason = why_infeasible(point)
            if reason is None:
                return record
            self.ended(record.number, Status.PRUNED, reason)
        if len(self._trials) < self.config.tune.num_trials:
            logger.info("no other point is left in the space: the sweep ends with %d trials", len(self._trials))
        return None

    def _next_point(self) -> Parameters | None:
        number = len(self._trials)
        if number >= self.config.tune.num_trials:
            return None
        if number == 0 and self.config.tune.include_default:
            return self._defaults
        return propose(self.sweep)

    def begun(self, number: int) -> None:
        """A trial has workers, or waits for them."""
        self._heard[number] = time.monotonic()
        record = self._trials[number]
        again = f" goes on after epoch {record.epochs}" if record.evaluations else ""
        logger.info("%s%s: %s", record.name, again, described(record.parameters))

    def evaluated(self, number: int, evaluations: Mapping[int, Mapping[str, float]], first_step: float | None) -> None:
        """A trial has been evaluated.

        Args:
            number: which one.
            evaluations: metrics by epoch.
            first_step: seconds from its beginning to its first optimizer step, if it has made one.
        """
        before, best = self._trials[number], self.sweep.best
        most = best.score(self._objective) if best else None
        record = self._heard_of(
            number,
            evaluations=before.evaluations | {epoch: dict(metrics) for epoch, metrics in evaluations.items()},
            seconds_to_first_step=before.seconds_to_first_step if first_step is None else first_step,
        )
        for epoch in sorted(evaluations.keys() - before.evaluations.keys()):
            score = evaluations[epoch][self._objective.metric]
            better = most is not None and self._objective.better(score, most)
            mark = " (better than any trial before)" if better else ""
            logger.info("%s: epoch %d, %s %.2f%s", record.name, epoch, self._objective.by, score, mark)

    def ended(self, number: int, status: Status, reason: str | None = None) -> None:
        """Nothing is left to be done for a trial."""
        record = self._heard_of(number, status=status, reason=reason)
        logger.info("%s: %s%s", record.name, status, f": {reason}" if reason else "")

    def failed_once(self, number: int, reason: str) -> None:
        """A trial has failed, and is tried again."""
        record = self._heard_of(number)
        logger.warning("%s failed and is tried again: %s", record.name, reason)

    def _heard_of(self, number: int, **changes: Any) -> TrialRecord:
        """Change a trial, and count the time since it was last heard of."""
        before, now = self._trials[number], time.monotonic()
        spent = now - self._heard.get(number, now)
        self._heard[number] = now
        return self._put(dataclasses.replace(before, ended=time.time(), seconds=before.seconds + spent, **changes))

    def _put(self, record: TrialRecord) -> TrialRecord:
        self._trials[record.number] = record
        write_trials(self.folder, self._trials.values())
        return record


def described(parameters: Parameters) -> str:
    """A point in words."""
    return ", ".join(f"{field} {shown(value)}" for field, value in parameters.items())


def shown(value: object) -> str:
    """A value with the digits that matter."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
