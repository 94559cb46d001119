"""Predicted texts against an independent metric, and against the official v2.0 definition written out once more."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passages import SQUAD, read_file
from torchmetrics.functional.text import squad as torchmetrics_squad

from qa_ray.config.policies import Language
from qa_ray.schema import Answer, Passage, Question
from qa_ray.scores.analysis import groupings
from qa_ray.scores.intervals import headline_scores
from qa_ray.scores.normalization import normalize
from qa_ray.scores.predicted_texts import score_texts

CONTEXT = "The river Vltava flows through Prague. Prague lies on the Vltava."


def passage(key: str, *answers: str, context: str = CONTEXT) -> Passage:
    found = tuple(Answer(text, context.index(text)) for text in answers)
    return Passage(context, (Question(key, "Which river?", found, f"row {key}"),))


RIVERS = [passage("a", "river Vltava", "Vltava"), passage("b", "Prague"), passage("n"), passage("m")]


def score(passages, predictions, null_odds=None, *, no_answer=True, threshold=None, language=Language.SQUAD):
    return score_texts(passages, predictions, null_odds, no_answer=no_answer, threshold=threshold, language=language)


def official_v2(passages, predictions, na_probs, na_prob_thresh):
    """Exact match and F1 of all questions, of those with an answer and without, as evaluate-v2.0.py has them."""
    rows = []
    for item in passages:
        [question] = item.questions
        golds = [answer.text for answer in question.answers if normalize(answer.text)] or [""]
        text = predictions[question.id]
        exact, f1 = float(any(normalize(gold) == normalize(text) for gold in golds)), 0.0
        for gold in golds:
            one, other = normalize(gold).split(), normalize(text).split()
            same = sum((Counter(one) & Counter(other)).values())
            if not one or not other:
                f1 = max(f1, float(one == other))
            elif same:
                f1 = max(f1, 2 / (len(one) / same + len(other) / same))
        if na_probs[question.id] > na_prob_thresh:
            exact = f1 = float(not question.answers)
        rows.append((bool(question.answers), exact, f1))
    found = {}
    groups = {"": rows, "HasAns_": [row for row in rows if row[0]], "NoAns_": [row for row in rows if not row[0]]}
    for prefix, group in groups.items():
        if group:
            found[f"{prefix}exact{'' if prefix else '_match'}"] = 100 * sum(r[1] for r in group) / len(group)
            found[f"{prefix}f1"] = 100 * sum(r[2] for r in group) / len(group)
    return found


texts = st.sampled_from(["", "river Vltava", "the Vltava", "Vltava", "Prague", "Prague lies", "a river", "the", "Brno"])


@settings(deadline=None)
@given(st.data())
def test_v2_scores_are_the_official_ones_with_and_without_a_threshold(data):
    predictions = {key: data.draw(texts) for key in "abnm"}
    odds = {key: data.draw(st.sampled_from([-2.0, 0.0, 0.5, 1.0, 3.0])) for key in "abnm"}
    plain = score(RIVERS, predictions)
    assert plain.metrics == pytest.approx(official_v2(RIVERS, predictions, dict.fromkeys(odds, 0.0), 1.0) | {
        "total": 4, "HasAns_total": 2, "NoAns_total": 2,
    })  # fmt: skip
    for threshold in (1.0, 0.0, None):
        found = score(RIVERS, predictions, odds, threshold=threshold)
        expected = official_v2(RIVERS, predictions, odds, math.inf if threshold is None else threshold)
        assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)
        best = max(official_v2(RIVERS, predictions, odds, limit)["f1"] for limit in (-9, -1, 0.2, 0.7, 2, 9))
        assert found.metrics["best_f1"] == pytest.approx(best)
        at_best = score(RIVERS, predictions, odds, threshold=found.metrics["best_f1_thresh"]).metrics
        assert at_best["f1"] == pytest.approx(best)
        assert found.metrics.get("threshold") == threshold
        means = {name: interval.mean for name, interval in headline_scores(found.table, num_resamples=50).items()}
        assert means == pytest.approx(expected)


def test_v1_scores_of_squad_are_those_of_an_independent_metric():
    passages = read_file(str(SQUAD / "validation-v1.1.json"))
    asked = [(item.context, question) for item in passages for question in item.questions]
    choices = np.random.default_rng(0).integers(0, 4, len(asked)).tolist()
    predictions = {}
    for choice, (context, question) in zip(choices, asked, strict=True):
        answer = question.answers[-1]
        begin, end = answer.answer_start, answer.answer_start + len(answer.text)
        predictions[question.id] = [answer.text, f"the {answer.text}.", context[begin - 9 : end + 9], "Brno"][choice]
    theirs = torchmetrics_squad(
        [{"id": key, "prediction_text": text} for key, text in predictions.items()],
        [
            {
                "id": question.id,
                "answers": {
                    "text": [answer.text for answer in question.answers],
                    "answer_start": [answer.answer_start for answer in question.answers],
                },
            }
            for _, question in asked
        ],
    )
    found = score(passages, predictions, no_answer=False).metrics
    assert found["total"] == len(asked)
    assert 40 < found["exact_match"] < 60
    assert found["exact_match"] == pytest.approx(float(theirs["exact_match"]), abs=1e-3)
    assert found["f1"] == pytest.approx(float(theirs["f1"]), abs=1e-3)


def test_v2_scores_of_squad_are_the_official_ones():
    passages = read_file(str(SQUAD / "validation-v2.0.json"))
    rng = np.random.default_rng(0)
    single = [Passage(item.context, (question,)) for item in passages for question in item.questions]
    predictions, odds = {}, {}
    for item in single:
        [question] = item.questions
        text = question.answers[0].text if question.answers else item.context[:20]
        predictions[question.id] = "" if rng.random() < 0.3 else text[: rng.integers(5, 30)]
        odds[question.id] = float(rng.normal(0 if question.answers else 1))
    for threshold in (None, 0.4, 1.0):
        expected = official_v2(single, predictions, odds, math.inf if threshold is None else threshold)
        metrics = score(passages, predictions, odds, threshold=threshold).metrics
        assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_unanswerable_questions_are_left_out_where_no_answer_is_never_right():
    found = score(RIVERS, {"a": "Vltava", "b": "", "n": "x", "m": ""}, no_answer=False)
    assert found.metrics == {"exact_match": 50, "f1": 50, "total": 2}
    assert list(found.table.ids) == ["a", "b"]
    assert not found.table.no_answer


def test_table_says_where_texts_stand_and_nothing_that_is_not_known():
    predictions = {"a": "Vltava", "b": "nowhere in it", "n": "", "m": "Prague"}
    table = score(RIVERS, predictions).table
    spans = [
        [None if begin < 0 else context[begin:end] for begin, end in pair]
        for context, *pair in zip(table.contexts, table.reference_span, table.predicted_span, strict=True)
    ]
    assert spans == [["river Vltava", "Vltava"], ["Prague", None], [None, None], [None, "Prague"]]
    assert table.predicted_span[0].tolist() == [10, 16], "the place nearest to the reference, of two"
    assert (table.probability, table.num_windows, table.null_odds, table.threshold) == (None,) * 4
    assert table.unit == "characters"
    assert table.context_length.tolist() == [len(CONTEXT)] * 4
    assert [group.name for group in groupings(table)] == [
        "Question word", "Answer length", "Context length", "Answer position",
    ]  # fmt: skip
    [length] = [group for group in groupings(table) if group.name == "Context length"]
    assert length.labels == ("1\u2013250 characters",)


def test_threshold_silences_and_language_compares():
    odds = {"a": 2.0, "b": 0.0, "n": 3.0, "m": 0.0}
    table = score(RIVERS, dict.fromkeys(odds, "Prague"), odds, threshold=1.0).table
    assert list(table.predictions) == ["", "Prague", "", "Prague"]
    assert table.scores.exact_match.tolist() == [0, 1, 1, 0]
    assert table.answered.exact_match.tolist() == [0, 1, 0, 0]
    chinese = [passage("z", "北京大学", context="在北京大学。")]
    found = score(chinese, {"z": "北京"}, no_answer=False, language=Language.CHINESE)
    assert found.metrics["f1"] == pytest.approx(100 * 2 / 3)
    assert found.table.language is Language.CHINESE
