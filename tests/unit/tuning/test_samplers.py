"""Samplers: new points only, the same ones again after a restart, and TPE that learns from what it is told."""

import itertools
import math

import pytest
from sweeps import GOAL, SPACE, trial

from qa_ray.errors import ConfigError
from qa_ray.tuning.history import Status, TrialRecord
from qa_ray.tuning.options import SamplerKind, TuneConfig
from qa_ray.tuning.samplers import Sampler, make_sampler
from qa_ray.tuning.space import Parameters, read_space

CHOICES = ("window.stride=choice(32, 64)", "batch.size=randint(1, 3)")


def sampler(kind: str, items: tuple[str, ...] = SPACE, seed: int = 0) -> Sampler:
    return make_sampler(read_space(items), TuneConfig(sampler=SamplerKind(kind), seed=seed), GOAL)


def proposals(made: Sampler, number: int) -> list[Parameters]:
    known: list[Parameters] = []
    for trial_number in range(number):
        point = made.propose(trial_number, known)
        if point is None:
            break
        known.append(point)
    return known


@pytest.mark.parametrize("kind", list(SamplerKind))
def test_small_space_is_used_up_without_a_point_twice(kind: str) -> None:
    points = [tuple(point.values()) for point in proposals(sampler(kind, CHOICES), 99)]
    assert sorted(points) == list(itertools.product((32, 64), (1, 2, 3)))


def test_grid_of_a_range_of_reals_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim.learning_rate=loguniform.*a grid needs single values"):
        sampler("grid")


def test_random_point_depends_on_seed_and_number_alone() -> None:
    first = proposals(sampler("random"), 4)
    assert sampler("random").propose(3, first[:1]) == first[3]
    assert sampler("random", seed=1).propose(3, []) != first[3]


def test_optuna_goes_on_with_new_points_when_it_is_made_anew() -> None:
    before = proposals(sampler("optuna"), 3)
    again = sampler("optuna")
    for number, point in enumerate(before):
        again.tell(TrialRecord(number, point, Status.FINISHED, evaluations={1: {"eval_f1": 10.0 * number}}))
    point = again.propose(3, before)
    assert point is not None
    assert point not in before


def test_optuna_learns_where_scores_are_good() -> None:
    made = sampler("optuna")
    known, far = [], []
    for number in range(40):
        point = made.propose(number, known)
        assert point is not None
        known.append(point)
        rate = float(point["optim.learning_rate"])  # type: ignore[arg-type]
        far.append(abs(math.log10(rate / 5e-4)))
        made.tell(trial(number, rate, int(point["window.stride"]), 100 - 30 * far[-1]))  # type: ignore[call-overload]
    assert sum(far[20:]) < 0.6 * sum(far[:20])


@pytest.mark.parametrize("status", [Status.STOPPED, Status.PRUNED, Status.FAILED])
def test_optuna_takes_trials_without_a_model_and_points_outside_of_the_space(status: Status) -> None:
    made = sampler("optuna")
    scores = (10.0,) if status is Status.STOPPED else ()
    made.tell(trial(0, 1e-4, 32, *scores, status=status))
    made.tell(trial(1, 5.0, 7, 10.0))
    assert made.propose(2, []) is not None
