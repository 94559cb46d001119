"""The course of a sweep, without Ray: which trial is next, and what is noted and told of each."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from qa_ray.storage.run_folder import RunFolder
from qa_ray.tuning.options import TuneConfig
from qa_ray.tuning.sampler import Sampler
from qa_ray.tuning.space import Parameters, Space
from qa_ray.tuning.trials import Objective, Status, TrialRecord, best_trial, read_trials, write_trials

logger = logging.getLogger(__name__)

Feasibility = Callable[[Parameters], str | None]
"""Says why a point could not run, or None."""


class Study:
    """Gives out trials, and keeps what becomes of them in the sweep's folder, at once.

    Attributes:
        objective: what trials are compared by.
        tune: how many trials, and how they are chosen.
    """

    def __init__(
        self, folder: RunFolder, space: Space, defaults: Parameters, tune: TuneConfig, objective: Objective
    ) -> None:
        """Go on from the trials in `folder`.

        Args:
            folder: the sweep's.
            space: what is searched.
            defaults: the configuration's own values.
            tune: how many trials, and whether the first has the `defaults`.
            objective: what trials are compared by.

        Raises:
            ConfigError: the sampler cannot search this space.
            StorageError: the folder cannot be read.
        """
        self.tune, self.objective = tune, objective
        self._folder, self._defaults = folder, defaults
        self._sampler = Sampler(space, tune, objective)
        self._trials = read_trials(folder)
        self._given: set[int] = set()
        self._heard: dict[int, float] = {}

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials, in the order in which they were begun."""
        return list(self._trials.values())

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be tried."""
        return all(record.status.ended for record in self.trials) and self._next_point() is None

    def next_trial(self, why_infeasible: Feasibility) -> TrialRecord | None:
        """A trial to be begun, or one to go on with; None if there is none left."""
        left_over = (one for one in self.trials if not one.status.ended and one.number not in self._given)
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
        if len(self._trials) < self.tune.num_trials:
            logger.info("no other point is left in the space: the sweep ends with %d trials", len(self._trials))
        return None

    def _next_point(self) -> Parameters | None:
        number = len(self._trials)
        if number >= self.tune.num_trials:
            return None
        if number == 0 and self.tune.include_default:
            return self._defaults
        return self._sampler.propose(number, self.trials)

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
        before, best = self._trials[number], best_trial(self.trials, self.objective)
        most = None if best is None else best.score(self.objective)
        record = self._heard_of(
            number,
            evaluations=before.evaluations | {epoch: dict(metrics) for epoch, metrics in evaluations.items()},
            seconds_to_first_step=before.seconds_to_first_step if first_step is None else first_step,
        )
        for epoch in sorted(evaluations.keys() - before.evaluations.keys()):
            score = evaluations[epoch][self.objective.metric]
            better = most is not None and self.objective.better(score, most)
            mark = " (better than any trial before)" if better else ""
            logger.info("%s: epoch %d, %s %.2f%s", record.name, epoch, self.objective.by, score, mark)

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
        write_trials(self._folder, self.trials)
        return record


def described(parameters: Parameters) -> str:
    """A point in words."""
    return ", ".join(f"{field} {shown(value)}" for field, value in parameters.items())


def shown(value: object) -> str:
    """A value with the digits that matter."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
