"""What the figures draw: each line and bar holds the numbers that its name says."""

import numpy as np
import pytest

from qa_ray.pages import figures
from qa_ray.scores.analysis import Bin, Calibration, PrecisionRecall, Slice, ThresholdCurve
from qa_ray.scores.intervals import Interval


def drawn(figure) -> dict[str, tuple[list[float], list[float]]]:
    return {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}


def test_learning_curves_hold_the_recorded_metrics() -> None:
    history = [
        {"step": 1, "train_loss": 3.0},
        {"step": 2, "eval_loss": 2.0, "eval_f1": 10.0, "eval_exact_match": 5.0},
    ]
    assert drawn(figures.loss_curves(history)) == {"training": ([1], [3]), "validation": ([2], [2])}
    assert drawn(figures.score_curves(history)) == {"F1": ([2], [10]), "exact match": ([2], [5])}
    assert figures.loss_curves([]) is None
    assert figures.score_curves(history[:1]) is None


def test_bars_hold_their_own_score_and_the_first_slice_stands_highest() -> None:
    slices = [Slice("who", 1200, Interval(20, 15, 30), Interval(40, 38, 41)), Slice("why", 9, *[Interval(1, 1, 1)] * 2)]
    figure = figures.slice_bars(slices)
    assert drawn(figure) == {
        "F1": ([40, 1], ["who  (1,200)", "why  (9)"]),
        "exact match": ([20, 1], ["who  (1,200)", "why  (9)"]),
    }
    exact = figure.data[1]
    assert (exact.error_x.array[0], exact.error_x.arrayminus[0], exact.customdata[0]) == (10, 5, "[15.0, 30.0]")
    assert figure.layout.yaxis.autorange == "reversed"


def test_reliability_sets_the_share_right_against_the_probability() -> None:
    found = drawn(figures.reliability(Calibration((Bin(3, 0.25, 0.5), Bin(5, 0.75, 0.6)), 0.1)))
    assert found["this model"] == ([0.25, 0.75], [0.5, 0.6])
    assert found["questions"] == ([0.25, 0.75], [3, 5])
    assert found["perfect"] == ([0, 1], [0, 1])


def test_curves_of_no_answer_hold_what_was_computed() -> None:
    curve = ThresholdCurve(np.array([-1.0, 2.0]), np.array([10.0, 20.0]), np.array([30.0, 40.0]))
    figure = figures.threshold_scores(curve, 2.0, 2.0)
    assert drawn(figure) == {"F1": ([-1, 2], [30, 40]), "exact match": ([-1, 2], [10, 20])}
    assert [line.name for line in figure.layout.shapes] == ["chosen"]
    [line] = figures.precision_recall_curve(PrecisionRecall(np.array([0, 0.2]), np.array([1, 0.7]), 0.5)).data
    assert list(line.x) == pytest.approx([0, 0.2])
    assert list(line.y) == pytest.approx([1, 0.7])
