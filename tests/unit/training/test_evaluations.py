"""When a run is evaluated within an epoch, and when its evaluations end it."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_ray.config.fine_tuning import BatchConfig, Config, EvalConfig, TrainConfig
from qa_ray.errors import ConfigError
from qa_ray.training.evaluations import check_evaluations, is_due, is_exhausted


def due(config, epoch_steps, epochs=1):
    """Steps after which an evaluation is due, over the whole run."""
    positions = range(1, epoch_steps + 1)
    return [
        epoch * epoch_steps + position
        for epoch in range(epochs)
        for position in positions
        if is_due(config, step=epoch * epoch_steps + position, position=position, epoch_steps=epoch_steps)
    ]


@given(st.integers(1, 300), st.data())
def test_evaluations_of_an_epoch_are_equally_far_from_each_other(epoch_steps, data):
    number = data.draw(st.integers(1, epoch_steps))
    steps = due(EvalConfig(per_epoch=number), epoch_steps)
    assert len(steps) == number
    assert steps[-1] == epoch_steps
    assert max(b - a for a, b in pairwise([0, *steps])) - min(b - a for a, b in pairwise([0, *steps])) <= 1


def test_steps_are_counted_over_all_epochs():
    assert due(EvalConfig(every_steps=4), 7, epochs=3) == [4, 8, 12, 16, 20]
    assert due(EvalConfig(per_epoch=2), 7, epochs=2) == [4, 7, 11, 14]


def test_evaluations_that_a_run_never_comes_to_are_refused():
    # 55 windows, seven batches of eight in each of three epochs.
    config = Config(batch=BatchConfig(size=8), train=TrainConfig(epochs=3))
    check_evaluations(replace(config, evaluate=EvalConfig(every_steps=21)), 55)
    check_evaluations(replace(config, evaluate=EvalConfig(per_epoch=7)), 55)
    with pytest.raises(ConfigError, match=r"evaluate\.every_steps=22: the run has 21 steps"):
        check_evaluations(replace(config, evaluate=EvalConfig(every_steps=22)), 55)
    with pytest.raises(ConfigError, match=r"evaluate\.per_epoch=8: an epoch has 7 steps"):
        check_evaluations(replace(config, evaluate=EvalConfig(per_epoch=8)), 55)


@pytest.mark.parametrize(
    ("merits", "patience", "min_gain", "ends"),
    [
        ([], 1, 0, False),
        ([50], 1, 0, False),
        ([50, 50], 1, 0, True),
        ([50, 51, 50.9, 51], 3, 0, False),
        ([50, 51, 50.9, 51, 49], 3, 0, True),
        ([50, 49, 48, 51], 2, 0, False),
        ([50, 50.4, 50.8, 51.2], 2, 0.5, False),
        ([50, 50.4, 50.5], 2, 0.5, True),
        # A loss, of which less is better.
        ([-2.0, -1.0, -1.5], 1, 0, True),
        ([-math.inf, -math.inf], 2, 0, True),
        ([50, 40, 30, 20], None, 0, False),
    ],
)
def test_run_ends_once_its_patience_is_at_its_end(merits, patience, min_gain, ends):
    assert is_exhausted(merits, patience=patience, min_gain=min_gain) is ends
