"""Which point of a space is tried next: Optuna's samplers, in a study that is made anew from the trials' records."""

import warnings

import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from qa_ray.tuning.options import SamplerKind, TuneConfig
from qa_ray.tuning.space import Parameters, Space
from qa_ray.tuning.trials import Objective, Status, Sweep, TrialRecord

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
    study = optuna.create_study(direction=objective.direction, sampler=_sampler(sweep.config.tune, len(sweep.trials)))
    for record in sweep.trials:
        # The configuration's own values may lie outside of the space: nothing is learnt from them.
        if trial := as_optuna(record, space, objective, _STATES[record.status]):
            study.add_trial(trial)
    known = [record.parameters for record in sweep.trials]
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
