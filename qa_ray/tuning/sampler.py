"""Which point of a space is tried next: Optuna's samplers, in a study that is made anew from the trials' records."""

import warnings
from collections.abc import Sequence

import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, BruteForceSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from qa_ray.errors import ConfigError
from qa_ray.tuning.options import SamplerKind, TuneConfig
from qa_ray.tuning.space import Parameters, Space, written
from qa_ray.tuning.trials import Objective, Status, TrialRecord

# So many draws that are all known say that the space is used up, or nearly so.
_MOST_DRAWS = 100
_STATES = {
    Status.RUNNING: TrialState.RUNNING,
    Status.FINISHED: TrialState.COMPLETE,
    Status.STOPPED: TrialState.PRUNED,
    Status.PRUNED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
}


class Sampler:
    """Chooses points; what it chooses depends on the seed, the trial's number and the trials before it alone."""

    def __init__(self, space: Space, tune: TuneConfig, objective: Objective) -> None:
        """Choose from `space`.

        Raises:
            ConfigError: the sampler that `tune` asks for cannot search this space.
        """
        self._space, self._tune, self._objective = space, tune, objective
        for field, domain in space.items():
            if tune.sampler is SamplerKind.GRID and isinstance(domain, FloatDistribution):
                raise ConfigError(
                    f"--space {field}={written(domain)}: a grid needs single values: write choice(VALUE, ...), or use "
                    "another --tune.sampler"
                )

    def propose(self, number: int, trials: Sequence[TrialRecord]) -> Parameters | None:
        """The point of the trial `number`, none that was tried before; None if no other is left."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction=self._objective.direction, sampler=self._make(number))
        for record in trials:
            # The configuration's own values may lie outside of the space: nothing is learnt from them.
            if trial := as_optuna(record, self._space, self._objective, _STATES[record.status]):
                study.add_trial(trial)
        known = [record.parameters for record in trials]
        for _ in range(_MOST_DRAWS):
            point: Parameters = study.ask(dict(self._space)).params
            if point not in known:
                return point
        return None

    def _make(self, number: int) -> BaseSampler:
        # Seeded for each trial: a resumed sweep would otherwise draw again what it drew first.
        seed = (self._tune.seed * 1_000_003 + number) % 2**32
        if self._tune.sampler is SamplerKind.OPTUNA:
            # Optuna's own default would leave nothing to learn from in a small sweep.
            return TPESampler(seed=seed, n_startup_trials=min(10, max(3, self._tune.num_trials // 3)))
        if self._tune.sampler is SamplerKind.RANDOM:
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
