"""The table of an evaluation's questions, against the evaluation's own scores and the texts."""

import dataclasses

import numpy as np
import pytest
from evaluations import THRESHOLD, Asked, evaluation_of
from small_runs import changed, cpu_accelerator, made_passages, make_collator, tiny_config

from qa_ray.answers.decode import Candidates
from qa_ray.config.policies import Language
from qa_ray.model.loading import load_model
from qa_ray.scores import metrics
from qa_ray.scores.intervals import headline_scores
from qa_ray.scores.question_table import tabulate
from qa_ray.scores.results import assemble
from qa_ray.training.evaluator import Evaluator

RIVER = "The river Vltava flows through Prague, and nobody knows since when it has been there for the people to see."


@pytest.mark.parametrize("no_answer", [True, False], ids=["v2.0", "v1.1"])
def test_scores_of_the_questions_average_to_the_metrics(bert, no_answer: bool) -> None:
    passages = made_passages(12, unanswerable=4)
    config = changed(tiny_config(bert), evaluate={"n_best": 4})
    collator = make_collator(config, passages)
    result = Evaluator(collator, config.evaluate, no_answer=no_answer)(load_model(config.model), cpu_accelerator())
    table = tabulate(result, collator.corpus, collator.windows)
    assert len(table) == (12 if no_answer else 8)
    found = headline_scores(table, num_resamples=10)
    assert set(found) == set(result.metrics) & {
        f"{p}{s}" for p in ("", "HasAns_", "NoAns_") for s in ("exact", "f1")
    } | {"exact_match"}
    for name, score in found.items():
        assert score.mean == pytest.approx(result.metrics[name])
    assert list(table.predictions) == [result.predictions[key] for key in table.ids]


@pytest.mark.parametrize(
    ("best", "v1_exact", "v1_f1", "v2_f1"),
    [("The", 1, 0, 1), ("river", 0, 0, 0)],
    ids=["the same", "another answer"],
)
def test_reference_of_nothing_but_an_article_counts_in_intervals_as_in_the_metrics(
    best: str, v1_exact: float, v1_f1: float, v2_f1: float
) -> None:
    # The official v1.1 script finds the two texts equal, but gives them no F1, as they share no word.
    asked = [
        Asked("What?", RIVER, "The", best),
        Asked("Which river?", RIVER, "river", "river"),
        Asked("What does it do?", RIVER, "river Vltava flows through Prague", "Vltava flows"),
    ] * 7
    for no_answer, own_f1 in ((False, v1_f1), (True, v2_f1)):
        evaluation, corpus, windows = evaluation_of(asked, no_answer=no_answer)
        table = tabulate(evaluation, corpus, windows)
        assert (table.scores.exact_match[0], table.scores.f1[0]) == (v1_exact, own_f1)
        found = headline_scores(table, num_resamples=50)
        assert {name: score.mean for name, score in found.items()} == {
            name: evaluation.metrics[name] for name in found
        }, "to the last digit"
        assert found["exact_match"].mean == pytest.approx(100 * (v1_exact + 1 + 0) / 3)
        assert found["f1"].mean == pytest.approx(100 * (own_f1 + 1 + 4 / 7) / 3)
        assert all(0 < score.low < score.mean < score.high for score in found.values())


@pytest.mark.parametrize("no_answer", [True, False], ids=["v2.0", "v1.1"])
def test_texts_are_compared_by_the_rule_of_the_evaluation(no_answer: bool) -> None:
    asked = [Asked("Where?", "在北京（市）", "北京（市）", "北京（市"), Asked("Who?", "在北京（市）", "京", "北")]
    chinese = evaluation_of(asked, no_answer=no_answer, language=Language.CHINESE)
    table = tabulate(*chinese)
    assert table.language is Language.CHINESE
    assert table.scores.f1.tolist() == table.answered.f1.tolist() == [1, 0]
    assert (chinese[0].metrics["f1"], chinese[0].metrics["exact_match"]) == (50, 50)
    assert tabulate(*evaluation_of(asked, no_answer=no_answer)).scores.f1.tolist() == [0, 0]


def test_spans_are_where_the_texts_stand() -> None:
    asked = [
        Asked("Which river?", RIVER, "river Vltava", "Vltava"),
        Asked("Who?", f"\U0001f600 {RIVER}", None, "people"),
        Asked("When?", RIVER, None, "people", null_odds=THRESHOLD + 1),
    ]
    table = tabulate(*evaluation_of(asked))
    spans = zip(table.contexts, table.reference_span, table.predicted_span, strict=True)
    assert [tuple(None if begin < 0 else context[begin:end] for begin, end in pair) for context, *pair in spans] == [
        ("river Vltava", "Vltava"),
        (None, "people"),
        (None, None),
    ]
    assert list(table.predictions) == ["Vltava", "people", ""]
    assert table.scores.exact_match.tolist() == [0, 0, 1]
    assert table.answered.exact_match.tolist() == [0, 0, 0]
    assert (table.num_windows > 1).all()


def test_probability_is_that_of_what_is_predicted() -> None:
    # One candidate of score 0 beside "no answer" of the score null_odds.
    odds = [-2.0, 3.0]
    table = tabulate(
        *evaluation_of([Asked("Which river?", RIVER, "river", "river", null_odds=score) for score in odds])
    )
    assert table.probability == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-3))])


def test_threshold_is_known_to_be_the_best_of_these_very_questions_or_not() -> None:
    asked = [Asked("Which river?", RIVER, "river", "river"), Asked("Who?", RIVER, None, "people", null_odds=2)]
    evaluation, corpus, windows = evaluation_of(asked)
    table = tabulate(evaluation, corpus, windows)
    assert (table.threshold, table.best_threshold) == (THRESHOLD, evaluation.metrics["best_f1_thresh"])
    assert not table.is_flattered
    searched = dataclasses.replace(table, threshold=table.best_threshold)
    assert searched.is_flattered
    assert not tabulate(*evaluation_of(asked, no_answer=False)).is_flattered


def test_infinite_logits_have_no_probability() -> None:
    evaluation, corpus, windows = evaluation_of([Asked("Which river?", RIVER, "river", "river")], no_answer=False)
    spans = dataclasses.replace(evaluation.spans, chances=np.array([np.nan], np.float32))
    table = tabulate(dataclasses.replace(evaluation, spans=spans), corpus, windows)
    assert table.probability.tolist() == [0]


def test_question_whose_odds_are_the_threshold_is_answered() -> None:
    asked = [Asked("Which river?", RIVER, "river Vltava", "Vltava", null_odds=odds) for odds in (1.0, 1.5)]
    assert [asked[0].null_odds] == [THRESHOLD]
    table = tabulate(*evaluation_of(asked))
    assert (table.predicted_span[:, 0] < 0).tolist() == [False, True]
    assert table.scores.f1.tolist() == [pytest.approx(2 / 3), 0]


def test_lengths_are_those_of_the_context() -> None:
    evaluation, corpus, windows = evaluation_of([Asked("Which?", RIVER, "river", "river")])
    assert tabulate(evaluation, corpus, windows).context_length.tolist() == [len(corpus.context_ids(0))]


def test_question_without_any_candidate_has_no_span_and_no_probability() -> None:
    evaluation, corpus, windows = evaluation_of([Asked("Which?", RIVER, "river", "river")] * 2, no_answer=False)
    candidates = evaluation.spans.candidates
    first = Candidates(*(getattr(candidates, name)[:1] for name in Candidates.__slots__))
    table = tabulate(assemble(corpus, first, evaluation.spans.null, 0.5, no_answer=False), corpus, windows)
    assert table.predicted_span[1].tolist() == [-1, -1]
    assert table.probability.tolist() == [1, 0]
    assert table.scores.f1.tolist() == [1, 0]


@pytest.mark.parametrize("no_answer", [True, False])
def test_texts_are_compared_once(monkeypatch: pytest.MonkeyPatch, no_answer: bool) -> None:
    compared, f1 = [], metrics.f1
    monkeypatch.setattr(metrics, "f1", lambda text, *given, **named: compared.append(text) or f1(text, *given, **named))
    table = tabulate(*evaluation_of([Asked("Which?", RIVER, "river", "river")] * 5, no_answer=no_answer))
    assert compared == ["river"] * len(table) == ["river"] * 5
