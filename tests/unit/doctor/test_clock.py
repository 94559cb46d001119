"""How far off a clock is, given that its answer took a while."""

import pytest

from qa_ray.doctor.clock import Reading, same_time, skew
from qa_ray.doctor.verdict import Status


@pytest.mark.parametrize(
    ("offset", "trip", "expected"),
    [(0.0, 0.2, 0.0), (10.0, 0.0, 10.0), (10.0, 2.0, 9.0), (-10.0, 2.0, -9.0), (0.5, 2.0, 0.0)],
    ids=["right", "ahead", "ahead, slow answer", "behind, slow answer", "within the doubt"],
)
def test_skew_is_what_the_answers_delay_cannot_explain(offset: float, trip: float, expected: float) -> None:
    asked = 1000.0
    assert skew([Reading(asked, asked + trip / 2 + offset, asked + trip)]) == pytest.approx(expected)


def test_quickest_answer_counts() -> None:
    slow, quick = Reading(0.0, 5.0, 10.0), Reading(20.0, 23.1, 20.2)
    assert skew([slow, quick]) == pytest.approx(2.9)


@pytest.mark.parametrize(
    ("offset", "status"),
    [(0.01, Status.PASSED), (-5.0, Status.WARNING), (300.0, Status.FAILED)],
    ids=["a moment", "seconds", "minutes"],
)
def test_nodes_whose_clock_is_off_are_named(offset: float, status: Status) -> None:
    verdict = same_time({"good": [Reading(0, 0, 0)], "odd": [Reading(0, offset, 0)]})
    assert verdict.status is status
    assert ("odd by" in verdict.seen) == (status is not Status.PASSED)
    assert "good" not in verdict.seen
    assert ("NTP" in verdict.cure) == (status is not Status.PASSED)
