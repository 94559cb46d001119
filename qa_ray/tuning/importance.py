"""How much each searched field matters: the share of the scores' variance that it explains alone.

The estimate is functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014), by Optuna. All trials are
compared after the same epoch: the last one that each of them has reached.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from qa_ray.tuning.result import Sweep
from qa_ray.tuning.samplers import distribution

MIN_TRIALS = 4
"""With fewer there is nothing to estimate from."""
SURE_TRIALS = 20
"""With fewer the estimate is little more than a hint."""


@dataclass(frozen=True, slots=True)
class Importance:
    """Shares by field, largest first, which sum to one."""

    shares: Mapping[str, float]
    num_trials: int
    epoch: int
    """Epoch after which the trials were compared."""


def importance(sweep: Sweep, seed: int = 0) -> Importance | None:
    """Estimate how much each field matters; None if there are too few trials, or all scored the same."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    evaluated = [record for record in sweep.trials if record.evaluations]
    if len(evaluated) < MIN_TRIALS:
        return None
    epoch = min(record.epochs for record in evaluated)
    distributions = {field: distribution(domain) for field, domain in sweep.space.items()}
    study = optuna.create_study(direction="minimize" if sweep.goal.mode == "min" else "maximize")
    scores = []
    for record in evaluated:
        if _inside(record.parameters, distributions):
            scores.append(record.evaluations[epoch][sweep.goal.metric])
            study.add_trial(
                optuna.trial.create_trial(params=record.parameters, distributions=distributions, value=scores[-1])
            )
    if len(scores) < MIN_TRIALS or max(scores) == min(scores):
        return None
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return Importance(dict(shares), len(scores), epoch)


def _inside(parameters: Mapping[str, Any], distributions: Mapping[str, Any]) -> bool:
    """Whether a point is in the space: the configuration's own values need not be."""
    for field, allowed in distributions.items():
        try:
            inside = allowed._contains(allowed.to_internal_repr(parameters[field]))
        except ValueError:
            return False
        if not inside:
            return False
    return True
