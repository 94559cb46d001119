"""Points that are tried: new ones only, the same ones again after a restart, and TPE that learns from the records."""

import dataclasses
import itertools
import math

import pytest
from sweeps import F1, SPACE

from qa_ray.errors import ConfigError
from qa_ray.tuning.options import SamplerKind, TuneConfig
from qa_ray.tuning.sampler import Sampler
from qa_ray.tuning.space import Parameters, read_space
from qa_ray.tuning.trials import Status, TrialRecord

CHOICES = ("window.stride=choice(32, 64)", "batch.size=randint(1, 3)")


def sampler(kind: str, items: tuple[str, ...] = SPACE, seed: int = 0) -> Sampler:
    return Sampler(read_space(items), TuneConfig(sampler=SamplerKind(kind), seed=seed), F1)


def finished(number: int, point: Parameters) -> TrialRecord:
    """A trial that scores the better, the nearer its learning rate is to 5e-4."""
    rate = point.get("optim.learning_rate", 5e-4)
    assert isinstance(rate, float)
    score = 100 - 30 * abs(math.log10(rate / 5e-4))
    return TrialRecord(number, point, Status.FINISHED, evaluations={1: {"eval_f1": score}})


def searched(made: Sampler, num_trials: int) -> list[TrialRecord]:
    trials: list[TrialRecord] = []
    while len(trials) < num_trials and (point := made.propose(len(trials), trials)) is not None:
        trials.append(finished(len(trials), point))
    return trials


@pytest.mark.parametrize("kind", list(SamplerKind))
def test_small_space_is_used_up_without_a_point_twice(kind: str) -> None:
    points = [tuple(one.parameters.values()) for one in searched(sampler(kind, CHOICES), 99)]
    assert sorted(points) == list(itertools.product((32, 64), (1, 2, 3)))


@pytest.mark.parametrize("kind", ["optuna", "random"])
def test_points_depend_on_the_seed_and_the_trials_before(kind: str) -> None:
    trials = searched(sampler(kind), 14)
    assert searched(sampler(kind), 14) == trials
    assert sampler(kind).propose(13, trials[:13]) == trials[13].parameters
    assert sampler(kind, seed=1).propose(13, trials[:13]) != trials[13].parameters


def test_grid_of_a_range_of_reals_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learning_rate=loguniform\(1e-05, 0.001\): a grid needs single values"):
        sampler("grid")


def test_optuna_learns_where_scores_are_good() -> None:
    scores = [one.score(F1) or 0 for one in searched(sampler("optuna"), 40)]
    assert sum(100 - score for score in scores[20:]) < 0.6 * sum(100 - score for score in scores[:20])


@pytest.mark.parametrize("status", [Status.STOPPED, Status.PRUNED, Status.FAILED])
def test_optuna_learns_from_trials_without_a_model_but_for_failed_ones(status: Status) -> None:
    trials = searched(sampler("optuna"), 12)
    others = [dataclasses.replace(one, status=status) for one in trials]
    same = sampler("optuna").propose(12, others) == sampler("random").propose(12, others)
    assert same is (status is Status.FAILED), "points are drawn at random as long as nothing is learnt"


@pytest.mark.parametrize("kind", list(SamplerKind))
def test_trial_outside_of_the_space_is_left_out_of_account(kind: str) -> None:
    own = TrialRecord(0, {"window.stride": 128, "batch.size": 16}, Status.FINISHED, evaluations={1: {"eval_f1": 1.0}})
    assert sampler(kind, CHOICES).propose(1, [own]) == sampler(kind, CHOICES).propose(1, [])
