"""The course of a sweep, without Ray: which trial is next, and what is noted and told of each."""

import logging
import time
from collections.abc import Callable, Mapping

from qa_ray.tuning.history import Goal, History, Status, TrialRecord
from qa_ray.tuning.options import TuneConfig
from qa_ray.tuning.samplers import Sampler
from qa_ray.tuning.space import Parameters

logger = logging.getLogger(__name__)

Objection = Callable[[Parameters], str | None]
"""Says why a point could not run, or None."""


class Conductor:
    """Gives out trials, and keeps what becomes of them.

    Attributes:
        history: all trials.
    """

    def __init__(
        self,
        history: History,
        sampler: Sampler,
        objection: Objection,
        *,
        defaults: Parameters,
        tune: TuneConfig,
        goal: Goal,
    ) -> None:
        """Go on from `history`.

        Args:
            history: all trials so far.
            sampler: chooses points.
            objection: asked before a trial begins.
            defaults: the configuration's own values.
            tune: how many trials, and whether the first has the `defaults`.
            goal: what trials are compared by.
        """
        self.history = history
        self._sampler = sampler
        self._objection = objection
        self._defaults = defaults
        self._tune = tune
        self._goal = goal
        self._given: set[int] = set()
        self._heard: dict[int, float] = {}
        for record in history:
            if record.status.ended:
                sampler.tell(record)

    def next_trial(self) -> TrialRecord | None:
        """A trial to be begun, or one to go on with; None if there is none left."""
        left_over = (one for one in self.history if not one.status.ended and one.number not in self._given)
        record = next(left_over, None) or self._new_trial()
        if record is not None:
            self._given.add(record.number)
        return record

    def _new_trial(self) -> TrialRecord | None:
        while (number := len(self.history)) < self._tune.num_trials:
            point = self._point(number)
            if point is None:
                logger.info("no other point is left in the space: the sweep ends with %d trials", number)
                return None
            record = TrialRecord(number, point, Status.RUNNING, began=time.time())
            objection = self._objection(point)
            if objection is None:
                self.history.put(record)
                return record
            self.history.put(record)
            self.ended(number, Status.PRUNED, objection)
        return None

    def _point(self, number: int) -> Parameters | None:
        if number == 0 and self._tune.include_default:
            return self._defaults
        return self._sampler.propose(number, [record.parameters for record in self.history])

    def begun(self, number: int) -> None:
        """A trial has workers, or waits for them."""
        self._heard[number] = time.monotonic()
        record = self.history[number]
        again = f" goes on after epoch {record.epochs}" if record.evaluations else ""
        logger.info("%s%s: %s", record.name, again, described(record.parameters))

    def evaluated(self, number: int, evaluations: Mapping[int, Mapping[str, float]], first_step: float | None) -> None:
        """A trial has been evaluated.

        Args:
            number: which one.
            evaluations: metrics by epoch.
            first_step: seconds from its beginning to its first optimizer step, if it has made one.
        """
        record, before = self._heard_of(number), self.history.best(self._goal)
        known = record.evaluations
        record = self.history.change(
            number,
            evaluations=known | {epoch: dict(metrics) for epoch, metrics in evaluations.items()},
            seconds_to_first_step=record.seconds_to_first_step if first_step is None else first_step,
        )
        best = before.score(self._goal) if before else None
        for epoch, metrics in evaluations.items():
            if epoch not in known:
                score = metrics[self._goal.metric]
                mark = " (better than any trial before)" if best is not None and self._goal.better(score, best) else ""
                logger.info("%s: epoch %d, %s %.2f%s", record.name, epoch, self._goal.by, score, mark)

    def ended(self, number: int, status: Status, reason: str | None = None) -> None:
        """Nothing is left to be done for a trial."""
        self._heard_of(number)
        record = self.history.change(number, status=status, reason=reason)
        self._sampler.tell(record)
        logger.info("%s: %s%s", record.name, status, f": {reason}" if reason else "")

    def failed_once(self, number: int, reason: str) -> None:
        """A trial has failed, and is tried again."""
        self._heard_of(number)
        logger.warning("%s failed and is tried again: %s", self.history[number].name, reason)

    def _heard_of(self, number: int) -> TrialRecord:
        """Count the time since a trial was last heard of."""
        now = time.monotonic()
        spent = now - self._heard.get(number, now)
        self._heard[number] = now
        return self.history.change(number, ended=time.time(), seconds=self.history[number].seconds + spent)


def described(parameters: Parameters) -> str:
    """A point in words."""
    return ", ".join(f"{field} {shown(value)}" for field, value in parameters.items())


def shown(value: object) -> str:
    """A value with the digits that matter."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
