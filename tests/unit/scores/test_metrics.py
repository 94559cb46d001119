import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import squad as torchmetrics_squad

from qa_ray.errors import DataError
from qa_ray.scores.metrics import best_threshold, exact_match, f1, squad_scores, squad_v2_scores
from qa_ray.scores.normalization import normalize

WORDS = [
    "the",
    "A",
    "an",
    "Theory",
    "cat",
    "Cat's",
    "c.a.t",
    "(dog)",
    "1,000",
    "naïve",
    "Straße",
    "İ",
    "東京",
    "…",
    "$",
    "",
]
texts = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join) | st.text(max_size=12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat's\tpaw,", "cats paw"),
        ("another an theory", "another theory"),
        ("the-art a.b", "theart ab"),
        ("«the» naïve", "« » naïve"),
        ("A, an. THE!", ""),
    ],
)
def test_text_is_normalized_as_in_squad(text: str, expected: str) -> None:
    assert normalize(text) == expected


def test_best_reference_counts() -> None:
    assert exact_match("The cat.", ["dog", "cat"]) == 1
    assert exact_match("cats", ["dog", "cat"]) == 0
    assert f1("black cat sat", ["a dog", "the cat", "cat"]) == pytest.approx(0.5)
    assert f1("x y", ["x x y z"]) == pytest.approx(2 / 3)


def test_texts_that_normalize_to_nothing_follow_each_version() -> None:
    assert exact_match("the", ["a"]) == 1
    assert f1("the", ["a"]) == 1
    assert squad_scores({"q": "the"}, {"q": ["a"]}) == {"exact_match": 100, "f1": 0, "total": 1}


@settings(deadline=None)
@given(st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=4))
@example([("The cat sat.", ["cat sat", "a cat"]), ("東京 tower", ["the 東京"])])
def test_scores_agree_with_an_independent_implementation(rows: list[tuple[str, list[str]]]) -> None:
    # Torchmetrics scores two empty texts as v2.0 does, this function as v1.1 does; the test above has that case.
    rows = [(text, [*references, "x"]) for text, references in rows if normalize(text)] or [("a b", ["b"])]
    predictions = {str(number): text for number, (text, _) in enumerate(rows)}
    references = {str(number): texts for number, (_, texts) in enumerate(rows)}
    theirs = torchmetrics_squad(
        [{"id": id_, "prediction_text": text} for id_, text in predictions.items()],
        [{"id": id_, "answers": {"text": t, "answer_start": [0] * len(t)}} for id_, t in references.items()],
    )
    ours = squad_scores(predictions, references)
    assert ours["exact_match"] == pytest.approx(float(theirs["exact_match"]), abs=1e-3)
    assert ours["f1"] == pytest.approx(float(theirs["f1"]), abs=1e-3)


def test_predictions_of_other_questions_are_ignored() -> None:
    assert squad_scores({"q": "cat", "other": "dog"}, {"q": ["cat"]})["total"] == 1


def test_missing_predictions_are_counted_and_named() -> None:
    references = {f"q{number}": ["x"] for number in range(9)}
    with pytest.raises(DataError, match=r"8 ids \('q1', 'q2', .*, \.\.\.\) without a prediction"):
        squad_scores({"q0": "x"}, references)
    with pytest.raises(DataError, match=r"1 ids \('q'\) without a no-answer score"):
        squad_v2_scores({"q": "x"}, {"q": []}, {})


def test_scores_that_mean_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no references"):
        squad_scores({}, {})
    with pytest.raises(DataError, match=r"'q'.*without a reference answer"):
        squad_scores({"q": "x"}, {"q": []})
    with pytest.raises(DataError, match=r"'q'.*not a number"):
        squad_v2_scores({"q": "x"}, {"q": []}, {"q": math.nan})


PREDICTIONS = {"right": "the cat", "half": "black cat", "none low": "dog", "none high": "dog", "empty gold": "cat"}
REFERENCES: dict[str, Sequence[str]] = {
    "right": ["cat"], "half": ["cat"], "none low": [], "none high": (), "empty gold": ["the", "..."]
}  # fmt: skip
NO_ANSWER = {"right": -5.0, "half": -1.0, "none low": -3.0, "none high": 4.0, "empty gold": 2.0}


def test_v2_scores_at_a_given_threshold() -> None:
    scores = squad_v2_scores(PREDICTIONS, REFERENCES, NO_ANSWER, threshold=-2.0)
    # Answered: `right` (1, 1) and `none low` (0, 0). Called unanswerable: `half` and `empty gold` (0), `none high` (1).
    assert scores["exact_match"] == scores["f1"] == pytest.approx(40)
    assert [scores[f"HasAns_{key}"] for key in ("exact", "f1", "total")] == pytest.approx([100 / 3, 100 / 3, 3])
    assert [scores[f"NoAns_{key}"] for key in ("exact", "f1", "total")] == [50, 50, 2]
    assert scores["threshold"] == -2.0


def test_v2_scores_take_the_best_f1_threshold_if_none_is_given() -> None:
    scores = squad_v2_scores(PREDICTIONS, REFERENCES, NO_ANSWER)
    # Sums when answering none, then one more each time: F1 2, 3, 2, 2.67, 2.67, 1.67; exact 2, 3, 2, 2, 2, 1.
    assert scores["best_f1_thresh"] == scores["best_exact_thresh"] == scores["threshold"] == -4.0
    assert scores["best_f1"] == scores["f1"] == pytest.approx(60)
    assert scores["best_exact"] == scores["exact_match"] == pytest.approx(60)


def test_best_thresholds_of_exact_match_and_f1_may_differ() -> None:
    predictions = {"none": "dog", "half": "black cat", "more": "a big black cat"}
    references = {"none": [], "half": ["cat"], "more": ["black cat"]}
    scores = squad_v2_scores(predictions, references, {"none": -2.0, "half": -1.0, "more": -0.5})
    assert (scores["best_exact_thresh"], scores["best_f1_thresh"], scores["threshold"]) == (-3.0, 0.5, 0.5)
    assert scores["best_exact"] == pytest.approx(100 / 3)
    assert scores["f1"] == scores["best_f1"] == pytest.approx(100 * (2 / 3 + 0.8) / 3)
    assert scores["exact_match"] == 0


def test_reference_that_normalizes_to_nothing_is_left_out_beside_others() -> None:
    assert squad_v2_scores({"q": "an"}, {"q": ["the", "cat"]}, {"q": -1.0}, threshold=0.0)["exact_match"] == 0
    assert squad_v2_scores({"q": "an"}, {"q": ["the"]}, {"q": -1.0}, threshold=0.0)["HasAns_exact"] == 100


def test_answer_that_normalizes_to_nothing_is_right_for_an_unanswerable_question() -> None:
    scores = squad_v2_scores({"q": "the"}, {"q": []}, {"q": -1.0}, threshold=0.0)
    assert (scores["NoAns_exact"], scores["NoAns_f1"]) == (100, 100)
    assert "HasAns_exact" not in scores


def test_example_at_the_threshold_is_answered() -> None:
    assert squad_v2_scores({"q": "x"}, {"q": ["x"]}, {"q": 1.5}, threshold=1.5)["f1"] == 100
    assert squad_v2_scores({"q": "x"}, {"q": ["x"]}, {"q": 1.5}, threshold=1.25)["f1"] == 0


def sum_at(rows: list[tuple[float, bool, float]], threshold: float) -> float:
    return math.fsum(float(not has) if null > threshold else score for score, has, null in rows)


nulls = st.sampled_from([-np.inf, -3.0, -0.5, 0.0, 0.25, 2.0, np.inf]) | st.floats(allow_nan=False)
scored = st.lists(st.tuples(st.sampled_from([0.0, 1 / 3, 0.5, 1.0]), st.booleans(), nulls), min_size=1, max_size=12)


@settings(deadline=None, max_examples=300)
@given(scored)
@example([(1.0, True, 1 + 2**-52), (0.0, False, 1 + 2**-51)])
@example([(0.0, True, 1.7976931348623157e308), (0.0, False, -1.7976931348623157e308)])
def test_best_threshold_agrees_with_trying_every_cut(rows: list[tuple[float, bool, float]]) -> None:
    score, has_answer, null = (np.array(column) for column in zip(*rows, strict=True))
    found = best_threshold(score, has_answer, null)
    distinct = sorted({value for value in null.tolist() if math.isfinite(value)})
    # Every score is a cut that answers it and all below; one more cut answers none.
    lowest = math.nextafter(distinct[0], -math.inf) if distinct else 0.0
    cuts = [cut for cut in [lowest, *distinct] if math.isfinite(cut)]
    assert math.isfinite(found)
    assert sum_at(rows, found) == pytest.approx(max(sum_at(rows, cut) for cut in cuts))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(1.0, True, -2.0), (0.0, False, 4.0)], 1.0),
        ([(1.0, True, 3.0)], 4.0),
        ([(0.0, False, 3.0)], 2.0),
        ([(0.5, True, -8.0), (0.0, True, -2.0), (0.0, True, 6.0)], 2.0),
        ([(0.1, True, -10.0), (0.1, True, -9.0), (0.2, False, -4.0), (0.8, True, -1.0), (0.0, True, 1.0)], 0.0),
        ([(1.0, True, 1e308), (0.0, False, 1.5e308)], 1.25e308),
        ([(1.0, True, math.inf)], 0.0),
    ],
    ids=["between", "above all", "below all", "nearest to zero", "equal but for rounding", "huge", "no finite score"],
)
def test_threshold_is_midway(rows: list[tuple[float, bool, float]], expected: float) -> None:
    score, has_answer, null = (np.array(column) for column in zip(*rows, strict=True))
    assert best_threshold(score, has_answer, null) == expected
