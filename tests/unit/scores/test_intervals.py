"""Intervals of recorded scores, worked out from predictions and references."""

import pytest

from qa_ray.scores.comparison import score_intervals
from qa_ray.scores.metrics import squad_scores, squad_v2_scores

REFERENCES = {"a": ["one"], "b": ["two words"], "c": ["three"], "d": []}
PREDICTIONS = {"a": "one", "b": "two", "c": "wrong", "d": "something"}


def test_v1_intervals_leave_unanswerable_questions_out() -> None:
    answered = {key: texts for key, texts in REFERENCES.items() if texts}
    metrics = squad_scores(PREDICTIONS, answered)
    found = score_intervals(metrics, PREDICTIONS, REFERENCES)
    assert found is not None
    assert found.keys() == {"exact_match", "f1"}
    assert found["exact_match"] == pytest.approx((100 / 3, 0, 100))
    assert found["f1"].mean == pytest.approx(metrics["f1"])


def test_v2_intervals_are_of_the_final_predictions() -> None:
    odds = {"a": -1.0, "b": 2.0, "c": -3.0, "d": 1.0}
    metrics = squad_v2_scores(PREDICTIONS, REFERENCES, odds, threshold=0.0)
    final = {key: "" if odds[key] > 0 else text for key, text in PREDICTIONS.items()}
    found = score_intervals(metrics, final, REFERENCES)
    assert found is not None
    names = ["exact_match", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1"]
    assert {name: interval.mean for name, interval in found.items()} == pytest.approx({n: metrics[n] for n in names})
    assert found["NoAns_f1"] == (100, 100, 100)
    assert found["exact_match"].low < metrics["exact_match"] < found["exact_match"].high


def test_part_without_questions_has_no_interval() -> None:
    predictions = {"a": "one"}
    metrics = squad_v2_scores(predictions, {"a": ["one"]}, {"a": -1.0})
    found = score_intervals(metrics, predictions, REFERENCES)
    assert found is not None
    assert "NoAns_f1" not in found


@pytest.mark.parametrize("references", [{"a": ["one"]}, REFERENCES | {"a": ["other"]}], ids=["missing", "changed"])
def test_other_references_than_those_measured_with_give_none(references: dict[str, list[str]]) -> None:
    metrics = squad_scores(PREDICTIONS, {key: texts for key, texts in REFERENCES.items() if texts})
    assert score_intervals(metrics, PREDICTIONS, references) is None
