"""A sweep's course, without Ray: its trials as Optuna's study, which point is tried next, and what becomes of each."""

import dataclasses
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from qa_ray.errors import StorageError
from qa_ray.tuning.options import SEED, SamplerKind, SweepConfig, TuneConfig
from qa_ray.tuning.space import Parameters, Space, defaults
from qa_ray.tuning.trials import TRIALS, Objective, Status, Sweep, TrialRecord, read_trials, write_trials

logger = logging.getLogger(__name__)

Feasibility = Callable[[Parameters], str | None]
"""Says why a point could not run, or None."""
# So many draws that are all known say that the space is used up, or nearly so.
_MOST_DRAWS = 100
_STATES = {
    Status.RUNNING: TrialState.RUNNING,
    Status.FINISHED: TrialState.COMPLETE,
    Status.STOPPED: TrialState.PRUNED,
    Status.PRUNED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
}


def propose(sweep: Sweep) -> Parameters | None:
    """The point of a sweep's next trial, none that was tried before; None if no other is left.

    It depends on the sweep's seed, the trial's number and the trials before it alone.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, objective = sweep.space, sweep.objective
    study = optuna.create_study(direction=objective.direction, sampler=_sampler(sweep.config.tune, len(sweep.searched)))
    for record in sweep.searched:
        # The configuration's own values may lie outside of the space: nothing is learnt from them.
        if trial := as_optuna(record, space, objective, _STATES[record.status]):
            study.add_trial(trial)
    known = [record.parameters for record in sweep.searched]
    for _ in range(_MOST_DRAWS):
        point: Parameters = study.ask(dict(space)).params
        if point not in known:
            return point
    return None


def _sampler(tune: TuneConfig, number: int) -> BaseSampler:
    # Seeded for each trial: a resumed sweep would otherwise draw again what it drew first.
    seed = (tune.seed * 1_000_003 + number) % 2**32
    if tune.sampler is SamplerKind.OPTUNA:
        # Optuna's own default would leave nothing to learn from in a small sweep.
        return TPESampler(seed=seed, n_startup_trials=min(10, max(3, tune.num_trials // 3)))
    if tune.sampler is SamplerKind.RANDOM:
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return BruteForceSampler(seed=seed)


def as_optuna(record: TrialRecord, space: Space, objective: Objective, state: TrialState) -> FrozenTrial | None:
    """A trial's record as Optuna knows trials, with its scores by epoch; None if it lies outside of the space."""
    try:
        return create_trial(
            state=state,
            params=record.parameters,
            distributions=dict(space),
            value=record.score(objective) if state is TrialState.COMPLETE else None,
            intermediate_values=record.scores(objective),
        )
    except ValueError:
        return None


class Study:
    """Gives out trials, and keeps what becomes of them in the sweep's folder: at once, or as soon as it can be written.

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
        self._unwritten = False

    @property
    def sweep(self) -> Sweep:
        """What there is to show now."""
        return Sweep(self.config, list(self._trials.values()))

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be tried."""
        return self._searched and not self.repeats_left

    @property
    def repeats_left(self) -> bool:
        """Whether only repeats are left to be tried, and there are some."""
        return self._searched and (
            self._next_repeat() is not None or not all(record.status.ended for record in self._trials.values())
        )

    @property
    def _searched(self) -> bool:
        return all(record.status.ended for record in self.sweep.searched) and self._next_point() is None

    def next_trial(self, why_infeasible: Feasibility, *, repeats: bool = False) -> TrialRecord | None:
        """A trial to be begun, or one to go on with; None if there is none left.

        Args:
            why_infeasible: tells of points that cannot run.
            repeats: gives out repeats of the best trials, in place of trials that are searched.
        """
        begun = [one for one in self._trials.values() if (one.repeats is not None) == repeats]
        left_over = (one for one in begun if not one.status.ended and one.number not in self._given)
        record = next(left_over, None) or (self._next_repeat() if repeats else self._new_trial(why_infeasible))
        if record is not None:
            self._given.add(record.number)
            if record.number not in self._trials:
                self._put(record)
        return record

    def _next_repeat(self) -> TrialRecord | None:
        """The next repeat of a finalist that has not been begun; each has its second seed before any has its third."""
        tune, seed, sweep = self.config.tune, self.config.train.seed, self.sweep
        known = [record.parameters for record in self._trials.values()]
        for later in range(1, tune.repeats):
            for finalist in sweep.finished(most=tune.finalists):
                values = finalist.parameters | {SEED: seed + later}
                if values not in known:
                    return TrialRecord(len(self._trials), values, began=time.time(), repeats=finalist.number)
        return None

    def _new_trial(self, why_infeasible: Feasibility) -> TrialRecord | None:
        while (point := self._next_point()) is not None:
            record = TrialRecord(len(self._trials), point, began=time.time())
            self._put(record)
            reason = why_infeasible(point)
            if reason is None:
                return record
            self.ended(record.number, Status.PRUNED, reason)
        number = len(self.sweep.searched)
        if number < self.config.tune.num_trials:
            logger.info("no other point is left in the space: the sweep ends with %d trials", number)
        return None

    def _next_point(self) -> Parameters | None:
        number = len(self.sweep.searched)
        if number >= self.config.tune.num_trials:
            return None
        if number == 0 and self.config.tune.include_default:
            return self._defaults
        return propose(self.sweep)

    def begun(self, number: int) -> None:
        """A trial has workers, or waits for them."""
        self._heard[number] = time.monotonic()
        record = self._trials[number]
        again = f" goes on after epoch {record.epochs:g}" if record.evaluations else ""
        logger.info("%s%s: %s", record.name, again, described(record.parameters))

    def evaluated(
        self, number: int, evaluations: Mapping[float, Mapping[str, float]], first_step: float | None
    ) -> None:
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
            score = evaluations[epoch].get(self._objective.metric, math.nan)
            better = most is not None and self._objective.better(score, most)
            mark = " (better than any trial before)" if better else ""
            logger.info("%s: epoch %g, %s %.2f%s", record.name, epoch, self._objective.by, score, mark)

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
        try:
            self.write()
        except StorageError as error:
            # Each write has all trials: the next one makes up for this one, and the sweep's end insists on it.
            if not self._unwritten:
                logger.warning("%s is not written; the sweep goes on, and tries again: %s", TRIALS, error)
            self._unwritten = True
        return record

    def write(self) -> None:
        """Write all trials into the sweep's folder.

        Raises:
            StorageError: the folder cannot be written.
        """
        write_trials(self.folder, self._trials.values())
        self._unwritten = False


def described(parameters: Parameters) -> str:
    """A point in words."""
    return ", ".join(f"{field} {shown(value)}" for field, value in parameters.items())


def shown(value: object) -> str:
    """A value with the digits that matter."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
