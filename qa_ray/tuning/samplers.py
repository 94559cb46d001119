"""Which point of a space is tried next: at random, all in turn, or where Optuna expects a good score."""

import itertools
import logging
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Protocol

import optuna

from qa_ray.errors import ConfigError
from qa_ray.tuning.domains import Choice, Domain, Integers, members
from qa_ray.tuning.history import Goal, Status, TrialRecord
from qa_ray.tuning.options import SamplerKind, TuneConfig
from qa_ray.tuning.space import Parameters, Space

# So many draws that are all known say that the space is used up, or nearly so.
_MOST_DRAWS = 100


class Sampler(Protocol):
    """Chooses points, and learns from trials that have ended."""

    def propose(self, number: int, known: Iterable[Parameters]) -> Parameters | None:
        """The point of the trial `number`, none of the `known` ones; None if no other is left."""

    def tell(self, record: TrialRecord) -> None:
        """Learn from a trial that has ended, now or before the sweep was resumed."""


def make_sampler(space: Space, tune: TuneConfig, goal: Goal) -> Sampler:
    """The sampler that `tune` asks for.

    Raises:
        ConfigError: it cannot search this space.
    """
    makers: dict[SamplerKind, Callable[[], Sampler]] = {
        SamplerKind.RANDOM: lambda: RandomSampler(space, tune.seed),
        SamplerKind.GRID: lambda: GridSampler(space),
        SamplerKind.OPTUNA: lambda: OptunaSampler(space, tune, goal),
    }
    return makers[tune.sampler]()


class RandomSampler:
    """Draws each trial's values from its own seed: they are the same whatever came before."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed

    def propose(self, number: int, known: Iterable[Parameters]) -> Parameters | None:
        """Draw until a point is new."""
        random, seen = Random(f"{self._seed}-{number}"), list(known)
        for _ in range(_MOST_DRAWS):
            point: Parameters = {field: domain.draw(random) for field, domain in self._space.items()}
            if point not in seen:
                return point
        return None

    def tell(self, record: TrialRecord) -> None:
        """Learn nothing."""


class GridSampler:
    """Gives all combinations in turn, the last field changing fastest."""

    def __init__(self, space: Space) -> None:
        """List the grid.

        Raises:
            ConfigError: a field is searched in a range of numbers that cannot be counted.
        """
        values = {}
        for field, domain in space.items():
            found = members(domain)
            if found is None:
                raise ConfigError(
                    f"--space {field}={domain}: a grid needs single values: write choice(VALUE, ...), or use another "
                    "--tune.sampler"
                )
            values[field] = found
        self._points = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]

    def propose(self, number: int, known: Iterable[Parameters]) -> Parameters | None:
        """The first point that is not known."""
        seen = list(known)
        return next((point for point in self._points if point not in seen), None)

    def tell(self, record: TrialRecord) -> None:
        """Learn nothing."""


class OptunaSampler:
    """Optuna's TPE. Its study is in memory: it is made anew from the trials' records."""

    def __init__(self, space: Space, tune: TuneConfig, goal: Goal) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._goal = goal
        self._seed = tune.seed
        # Optuna's own default would leave nothing to learn from in a small sweep.
        self._random_trials = min(10, max(3, tune.num_trials // 3))
        self._distributions = {field: distribution(domain) for field, domain in space.items()}
        direction = "minimize" if goal.mode == "min" else "maximize"
        self._study = optuna.create_study(direction=direction)
        self._asked: dict[int, Any] = {}

    def propose(self, number: int, known: Iterable[Parameters]) -> Parameters | None:
        """Ask until a point is new."""
        # Seeded for each trial: a resumed sweep would otherwise draw again what it drew first.
        seed = self._seed * 1_000_003 + number
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._random_trials)
        seen = list(known)
        for _ in range(_MOST_DRAWS):
            trial = self._study.ask(self._distributions)
            if trial.params not in seen:
                self._asked[number] = trial
                return dict(trial.params)
            # Nothing was learnt: this state is left out of account.
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None

    def tell(self, record: TrialRecord) -> None:
        """Learn from a trial: from all its evaluations if it was stopped."""
        asked = self._asked.pop(record.number, None)
        if asked is not None:
            # In favour of the same trial with all that is known of it.
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
        try:
            self._study.add_trial(_as_optuna(record, self._distributions, self._goal))
        except ValueError:
            # The configuration's own values may lie outside of the space.
            logging.getLogger(__name__).debug("%s is outside of the space", record.name)


def _as_optuna(record: TrialRecord, distributions: dict[str, Any], goal: Goal) -> Any:
    """A trial's record as Optuna knows trials."""
    states = {
        Status.FINISHED: optuna.trial.TrialState.COMPLETE,
        Status.STOPPED: optuna.trial.TrialState.PRUNED,
        Status.PRUNED: optuna.trial.TrialState.PRUNED,
        Status.FAILED: optuna.trial.TrialState.FAIL,
    }
    return optuna.trial.create_trial(
        state=states[record.status],
        params=record.parameters,
        distributions=distributions,
        value=record.score(goal) if record.status is Status.FINISHED else None,
        intermediate_values={epoch: metrics[goal.metric] for epoch, metrics in record.evaluations.items()},
    )


def distribution(domain: Domain) -> Any:
    """A domain as Optuna knows it."""
    if isinstance(domain, Choice):
        return optuna.distributions.CategoricalDistribution(domain.values)
    if isinstance(domain, Integers):
        return optuna.distributions.IntDistribution(domain.low, domain.high, log=domain.log)
    return optuna.distributions.FloatDistribution(domain.low, domain.high, log=domain.log)
