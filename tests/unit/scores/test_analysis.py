import dataclasses

import numpy as np
import pytest
from evaluations import Asked, evaluation_of, table_of

from qa_ray.scores.analysis import (
    FEWEST,
    calibrate,
    groupings,
    precision_recall,
    slice_scores,
    threshold_curve,
    worst_errors,
)
from qa_ray.scores.metrics import QuestionScores, squad_v2_scores
from qa_ray.scores.question_table import tabulate

CONTEXT = "The university was founded in 1348, and the cathedral in 1344. The river flows through the old town."


@pytest.fixture(scope="module")
def table():
    asked = [
        Asked("In what year was the university founded?", CONTEXT, "1348", "1348"),
        Asked("Whose town is it?", CONTEXT, "old town", "town"),
        Asked("WHY?", CONTEXT, None, "river", null_odds=5),
        Asked("Name the river.", "The river.", "river", "The river"),
        Asked("Which building came before which?", CONTEXT, "the cathedral in 1344", "river"),
    ]
    return tabulate(*evaluation_of(asked))


def labels(table, name):
    [grouping] = [item for item in groupings(table) if item.name == name]
    return [grouping.labels[place] for place in grouping.slice_of]


def test_questions_are_sliced_by_what_was_asked_and_where_the_answer_stands(table) -> None:
    assert labels(table, "Question word") == ["what", "who", "why", "other", "which"]
    assert labels(table, "Answer length") == ["1 word", "2 words", "no answer", "1 word", "4\u20135 words"]
    assert labels(table, "Answer position")[1:3] == ["last fifth", "no answer"]
    assert set(labels(table, "Context length")) == {"1\u201364 tokens"}
    assert labels(table, "Windows") == [*["1 window"] * 4, "2 windows"]


@pytest.mark.parametrize(
    ("column", "values", "name", "expected"),
    [
        ("num_windows", [1, 2, 3, 4, 9], "Windows", ["1 window", "2 windows", "3 windows", *["over 3 windows"] * 2]),
        (
            "context_length",
            [64, 65, 512, 513],
            "Context length",
            ["1\u201364 tokens", "65\u2013128 tokens", "385\u2013512 tokens", "over 512 tokens"],
        ),
        ("answer_first", [0, 1, 2, 9], "Answer position", [*["first fifth"] * 2, "second fifth", "last fifth"]),
    ],
)
def test_limits_belong_to_the_slice_that_they_end(column, values, name, expected) -> None:
    assert labels(table_of([0.0] * len(values), **{column: np.array(values)}), name) == expected


def test_slices_add_up_to_all_questions_and_their_score(table) -> None:
    for parts in slice_scores(table, groupings(table), num_resamples=20):
        assert all(part.number > 0 for part in parts)
        assert sum(part.number for part in parts) == len(table)
        for name in ("exact_match", "f1"):
            total = sum(part.number * getattr(part, name).mean for part in parts)
            assert total / len(table) == pytest.approx(100 * getattr(table.scores, name).mean())


def test_slice_has_the_scores_of_its_questions(table) -> None:
    [words] = [grouping for grouping in groupings(table) if grouping.name == "Question word"]
    [parts] = slice_scores(table, [words], num_resamples=9)
    found = {part.label: (part.number, part.exact_match.mean) for part in parts}
    assert found == {"what": (1, 100), "who": (1, 0), "why": (1, 100), "which": (1, 0), "other": (1, 100)}


def test_calibration_of_a_known_case() -> None:
    found = calibrate(np.array([0.0, 0.05, 0.81, 0.89, 1.0]), np.array([0, 1, 1, 0, 1]))
    assert [part.number for part in found.bins] == [2, 2, 1]
    assert [part.probability for part in found.bins] == pytest.approx([0.025, 0.85, 1.0])
    assert [part.share_right for part in found.bins] == [0.5, 0.5, 1.0]
    assert found.expected_error == pytest.approx((2 * 0.475 + 2 * 0.35 + 0) / 5)


def test_model_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    generator = np.random.default_rng(0)
    probability = generator.random(20_000)
    right = (generator.random(20_000) < probability).astype(float)
    assert calibrate(probability, right).expected_error < 0.02
    assert calibrate(probability, 1 - right).expected_error > 0.4


@pytest.fixture(scope="module")
def thresholds():
    """Scores in tenths, null odds with ties, and half of the questions unanswerable."""
    generator = np.random.default_rng(5)
    exact = generator.integers(0, 2, 40).astype(float)
    answered = QuestionScores(exact, np.maximum(exact, generator.integers(0, 10, 40) / 10))
    has_answer = np.arange(40) % 2 == 0
    answered = QuestionScores(*(np.where(has_answer, column, 0) for column in answered))
    return table_of(
        answered.exact_match,
        answered=answered,
        has_answer=has_answer,
        null_odds=generator.integers(-8, 8, 40).astype(float),
        threshold=0.0,
    )


def test_threshold_curve_goes_through_the_metrics_at_each_threshold(thresholds) -> None:
    curve = threshold_curve(thresholds, thresholds.null_odds)
    assert curve.threshold.tolist() == sorted(set(thresholds.null_odds.tolist()))
    for threshold, exact in zip(curve.threshold, curve.exact_match, strict=True):
        # A prediction that is right is the reference itself.
        references = {
            key: ["yes"] if has else [] for key, has in zip(thresholds.ids, thresholds.has_answer, strict=True)
        }
        right = zip(thresholds.ids, thresholds.answered.exact_match, strict=True)
        predictions = {key: "yes" if score else "no" for key, score in right}
        odds = dict(zip(thresholds.ids, thresholds.null_odds.tolist(), strict=True))
        assert exact == pytest.approx(squad_v2_scores(predictions, references, odds, threshold)["exact_match"])


def test_precision_and_recall_count_f1_as_true_positives(thresholds) -> None:
    # An answer to an unanswerable question is never right, whatever its text.
    answered = thresholds.answered._replace(f1=np.where(thresholds.has_answer, thresholds.answered.f1, 1))
    curve = precision_recall(dataclasses.replace(thresholds, answered=answered), thresholds.null_odds)
    for place, odds in enumerate(sorted(set(thresholds.null_odds.tolist())), start=1):
        given = thresholds.null_odds <= odds
        positives = thresholds.answered.f1[given & thresholds.has_answer].sum()
        assert curve.precision[place] == pytest.approx(positives / given.sum())
        assert curve.recall[place] == pytest.approx(positives / 20)
    assert (curve.recall[0], curve.precision[0]) == (0, 1)
    expected = sum(curve.precision[n] * (curve.recall[n] - curve.recall[n - 1]) for n in range(1, len(curve.recall)))
    assert curve.average_precision == pytest.approx(expected)


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    odds = np.random.default_rng(0).normal(size=3000)
    table = table_of(np.ones(3000), null_odds=odds, threshold=0.0)
    curve = threshold_curve(table, table.null_odds, max_points=50)
    assert len(curve.threshold) == 50
    assert (curve.threshold[0], curve.threshold[-1]) == (odds.min(), odds.max())
    assert len(precision_recall(table, table.null_odds, max_points=50).recall) == 51


def test_worst_errors_come_first() -> None:
    table = table_of([1, 0, 0, 0], [1, 0.5, 0, 0], probability=np.array([0.9, 0.9, 0.3, 0.8]))
    assert worst_errors(table, 200) == [3, 2, 1]
    assert worst_errors(table, 2) == [3, 2]


def test_interval_of_a_slice_is_that_of_its_questions_and_needs_enough_of_them() -> None:
    numbers = [FEWEST, FEWEST - 1, 400]
    texts = [text for text, number in zip(["Who?", "Why?", "How?"], numbers, strict=True) for _ in range(number)]
    table = table_of([row % 2 for row in range(len(texts))], [1.0] * len(texts), texts=texts)
    [words] = [grouping for grouping in groupings(table) if grouping.name == "Question word"]
    [[who, why, how]] = slice_scores(table, [words], num_resamples=200)
    assert [part.label for part in (who, why, how)] == ["who", "why", "how"]
    assert np.isnan([why.exact_match.low, why.exact_match.high, why.f1.low, why.f1.high]).all()
    assert why.f1.mean == 100
    assert who.exact_match.low < how.exact_match.low < 50 < how.exact_match.high < who.exact_match.high
    assert how.f1 == (100, 100, 100)


def test_certainty_falls_into_the_last_bin() -> None:
    [found] = calibrate(np.array([0.94, 1.0]), np.array([0, 1])).bins
    assert (found.number, found.share_right) == (2, 0.5)
    assert found.probability == pytest.approx(0.97)


def test_threshold_below_all_odds_leaves_only_the_unanswerable_right() -> None:
    has_answer = np.array([True, False, False, False, True])
    columns = {"has_answer": has_answer, "threshold": 0.0}
    table = table_of([0] * 5, null_odds=np.array([-9.0, -np.inf, 1, 2, 3]), **columns)
    curve = threshold_curve(table, table.null_odds)
    # No finite threshold lies below the odds of the second question, which is answered at each.
    assert curve.threshold.tolist() == [-9, 1, 2, 3]
    assert curve.exact_match == pytest.approx([40, 20, 0, 0])


def test_questions_without_answers_have_no_recall() -> None:
    table = table_of([1, 1], has_answer=np.zeros(2, bool), null_odds=np.array([0.0, 1]), threshold=0.0)
    curve = precision_recall(table, table.null_odds)
    assert curve.recall.tolist() == [0, 0, 0]
    assert curve.average_precision == 0


def test_answer_that_is_not_exact_is_an_error_even_with_full_f1() -> None:
    assert worst_errors(table_of([1, 0], [1, 1]), 9) == [1]
