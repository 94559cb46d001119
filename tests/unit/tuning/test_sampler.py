"""Points that are tried: new ones only, the same ones again after a restart, and TPE that learns from the records."""

import dataclasses
import itertools
import math

import pytest
from sweeps import F1, SPACE, sweep, trial

from qa_ray.tuning.options import SamplerKind, TuneConfig
from qa_ray.tuning.space import Parameters
from qa_ray.tuning.study import propose
from qa_ray.tuning.trials import Status, TrialRecord

CHOICES = ("window.stride=choice(32, 64)", "batch.size=randint(1, 3)")


def proposed(kind: str, trials: list[TrialRecord], space: tuple[str, ...] = SPACE, seed: int = 0) -> Parameters | None:
    return propose(sweep(*trials, space=space, tune=TuneConfig(sampler=SamplerKind(kind), seed=seed)))


def finished(number: int, point: Parameters) -> TrialRecord:
    """A trial that scores the better, the nearer its learning rate is to 5e-4."""
    rate = point.get("optim.learning_rate", 5e-4)
    assert isinstance(rate, float)
    score = 100 - 30 * abs(math.log10(rate / 5e-4))
    return TrialRecord(number, point, Status.FINISHED, evaluations={1: {"eval_f1": score}})


def searched(kind: str, num_trials: int, space: tuple[str, ...] = SPACE) -> list[TrialRecord]:
    trials: list[TrialRecord] = []
    while len(trials) < num_trials and (point := proposed(kind, trials, space)) is not None:
        trials.append(finished(len(trials), point))
    return trials


@pytest.mark.parametrize("kind", list(SamplerKind))
def test_small_space_is_used_up_without_a_point_twice(kind: str) -> None:
    points = [tuple(one.parameters.values()) for one in searched(kind, 99, CHOICES)]
    assert sorted(points) == list(itertools.product((32, 64), (1, 2, 3)))


@pytest.mark.parametrize("kind", ["optuna", "random"])
def test_points_depend_on_the_seed_and_the_trials_before(kind: str) -> None:
    trials = searched(kind, 14)
    assert searched(kind, 14) == trials
    assert proposed(kind, trials[:13]) == trials[13].parameters
    assert proposed(kind, trials[:13], seed=1) != trials[13].parameters


@pytest.mark.parametrize("kind", list(SamplerKind))
@pytest.mark.parametrize("seed", [4_295, 2**32 - 1, 2**64 + 7, 10**40])
def test_any_seed_that_the_option_allows_draws_a_point(kind: str, seed: int) -> None:
    trials = [finished(number, point) for number, point in enumerate([{"window.stride": 32, "batch.size": 1}])]
    assert proposed(kind, trials, CHOICES, seed=seed) not in (None, trials[0].parameters)


def test_random_point_depends_on_the_seed_and_the_number_alone() -> None:
    others = [trial(number, 1e-4, 32, 50.0) for number in range(3)]
    assert proposed("random", others) == searched("random", 4)[3].parameters


def test_optuna_learns_where_scores_are_good() -> None:
    scores = [one.score(F1) or 0 for one in searched("optuna", 40)]
    assert sum(100 - score for score in scores[20:]) < 0.6 * sum(100 - score for score in scores[:20])


@pytest.mark.parametrize("status", [Status.STOPPED, Status.PRUNED, Status.FAILED])
def test_optuna_learns_from_trials_without_a_model_but_for_failed_ones(status: Status) -> None:
    trials = [dataclasses.replace(one, status=status) for one in searched("optuna", 12)]
    same = proposed("optuna", trials) == proposed("random", trials)
    assert same is (status is Status.FAILED), "points are drawn at random as long as nothing is learnt"


@pytest.mark.parametrize("kind", list(SamplerKind))
def test_trial_outside_of_the_space_is_left_out_of_account(kind: str) -> None:
    own = TrialRecord(0, {"window.stride": 128, "batch.size": 16}, Status.FINISHED, evaluations={1: {"eval_f1": 1.0}})
    points = [tuple(one.parameters.values()) for one in searched(kind, 99, CHOICES)]
    point = proposed(kind, [own], CHOICES)
    assert point is not None
    assert tuple(point.values()) in points
