import dataclasses
import json
import math

import numpy as np
import pytest
from families import FAMILIES
from passages import corpus_of
from strict import read

from qa_ray.answers import n_best as listing
from qa_ray.answers.decode import Candidates
from qa_ray.answers.n_best import Found, NullSpans, Span, rank
from qa_ray.config.policies import Language
from qa_ray.schema import Answer, Passage, Question
from qa_ray.scores.results import Evaluation, assemble


def floats(*values):
    return np.array(values, np.float32)


def corpus_with(*answers, family="bert"):
    """A question for each answer, or None, about the context "river  bridge town"."""
    context = "river  bridge town"
    found = [() if text is None else (Answer(text, context.index(text)),) for text in answers]
    questions = tuple(Question(f"q{n}", "which ?", answer, f"row {n}") for n, answer in enumerate(found))
    return corpus_of([Passage(context, questions)], FAMILIES[family].tokenizer())


def candidates_of(corpus, *spans):
    """Candidates from (question, text, score), each split evenly over start and end."""
    rows = []
    for question, text, score in spans:
        starts, ends = corpus.offsets(question)
        begin = corpus.context(question).index(text)
        rows.append((question, starts.tolist().index(begin), ends.tolist().index(begin + len(text)), score / 2))
    question, first, last, half = (np.array(column) for column in zip(*rows, strict=True))
    return Candidates(question, first.astype(np.int32), last.astype(np.int32), floats(*half), floats(*half))


def null_of(*scores):
    return NullSpans(np.arange(len(scores)), floats(*scores) / 2, floats(*scores) / 2)


def test_the_window_least_sure_of_no_answer_counts():
    null = NullSpans.of(np.array([1, 0, 1, 0, 1]), floats(3, 5, -1, 4, 0), floats(3, 5, 2, 7, 0))
    assert null.example.tolist() == [0, 1]
    assert list(zip(null.start_logit, null.end_logit, strict=True)) == [(5, 5), (0, 0)]


def test_texts_are_cut_from_the_context_as_it_is_written():
    corpus = corpus_with("town")
    result = assemble(corpus, candidates_of(corpus, (0, "river  bridge", 4)), null_of(0), 0.5, no_answer=False)
    assert result.predictions == {"q0": "river  bridge"}
    assert result.metrics["loss"] == 0.5


def test_blank_text_is_never_the_answer():
    corpus = corpus_with("town", family="gpt2")
    spans = candidates_of(corpus, (0, " ", 9), (0, "river", 4))
    result = assemble(corpus, spans, null_of(5), 1.0, no_answer=True)
    assert [span.text for span in result.n_best["q0"]] == [" ", "", "river"]
    assert result.null_odds == {"q0": 1.0}
    assert assemble(corpus, spans, null_of(5), 1.0, no_answer=False).predictions == {"q0": "river"}


def test_threshold_decides_between_the_best_text_and_no_answer():
    corpus = corpus_with("river", None, "town", None)
    spans = candidates_of(corpus, (0, "river", 8), (1, "town", 2), (2, "town", 6), (3, "bridge", 3))
    result = assemble(corpus, spans, null_of(6, 6, 5, 5), 1.0, no_answer=True)
    assert result.null_odds == {"q0": -2.0, "q1": 4.0, "q2": -1.0, "q3": 2.0}
    assert -1 < result.metrics["threshold"] < 2
    assert result.predictions == {"q0": "river", "q1": "", "q2": "town", "q3": ""}
    assert result.metrics["f1"] == 100


def test_answer_is_predicted_up_to_the_threshold_even_if_no_answer_scores_higher():
    corpus = corpus_with("river", None)
    spans = candidates_of(corpus, (0, "river", 2), (1, "town", 1))
    result = assemble(corpus, spans, null_of(5, 9), 1.0, no_answer=True)
    assert result.n_best["q0"][0].text == ""
    assert result.predictions == {"q0": "river", "q1": ""}


def test_ties_are_decided_as_the_answerer_does():
    rng = np.random.default_rng(0)
    start, end, null_start = rng.normal(0, 5, (3, 60_000)).astype(np.float32)
    null_end = (start + end) - null_start
    # Ties of float32 that are none in float64.
    tied = (null_start + null_end == start + end) & (null_start.astype(float) + null_end != start.astype(float) + end)
    start, end, null_start, null_end = (column[tied] for column in (start, end, null_start, null_end))
    number = len(start)
    assert number > 5_000
    question = Question("q", "which ?", (Answer("river", 0),), "row")
    passages = [Passage("river  bridge", (dataclasses.replace(question, id=f"q{row}"),)) for row in range(number)]
    corpus = corpus_of(passages, FAMILIES["bert"].tokenizer())
    rows, first = np.arange(number), np.zeros(number, np.int32)
    candidates, null = Candidates(rows, first, first, start, end), NullSpans(rows, null_start, null_end)
    for threshold in (0.0, 1.5, -0.1):
        shifted = NullSpans(rows, null.start_logit + np.float32(threshold), null.end_logit)
        evaluated = assemble(corpus, candidates, shifted, 1.0, no_answer=True, threshold=threshold).predictions
        answered = [
            rank([Found("river  bridge", [Span(score, 0, 5)], score, null_score)], limit=1, threshold=threshold)
            for score, null_score in zip(candidates.score.tolist(), shifted.score.tolist(), strict=True)
        ]
        assert [answer["answer"] for [answer] in answered] == list(evaluated.values())
        assert threshold or set(evaluated.values()) == {"river"}


def test_no_answer_takes_its_place_among_the_n_best():
    corpus = corpus_with("river")
    spans = candidates_of(corpus, (0, "river", 4), (0, "town", 1))
    result = assemble(corpus, spans, null_of(2), 1.0, no_answer=True)
    assert [span.text for span in result.n_best["q0"]] == ["river", "", "town"]
    weights = np.exp([4, 2, 1])
    assert [span.probability for span in result.n_best["q0"]] == pytest.approx((weights / weights.sum()).tolist())
    assert (result.n_best["q0"][1].start_logit, result.n_best["q0"][1].end_logit) == (1, 1)


def test_null_spans_may_come_in_any_order():
    corpus = corpus_with("river", "town")
    spans = candidates_of(corpus, (0, "river", 4), (1, "town", 4))
    null = NullSpans(np.array([1, 0]), floats(10, 1), floats(10, 1))
    assert assemble(corpus, spans, null, 1.0, no_answer=True).null_odds == {"q0": -2.0, "q1": 16.0}


def test_question_without_candidates_gets_the_empty_answer():
    corpus = corpus_with("river", "town")
    spans = candidates_of(corpus, (1, "town", 4))
    result = assemble(corpus, spans, null_of(1, 1), 1.0, no_answer=True)
    assert result.predictions["q0"] == ""
    assert result.null_odds == {"q0": 1.0, "q1": -3.0}, "the answer that is missing scores 0"
    assert [span.text for span in result.n_best["q0"]] == [""]
    assert result.n_best["q0"][0].probability == 1
    assert assemble(corpus, spans, null_of(1, 1), 1.0, no_answer=False).n_best["q0"] == []


def test_files_keep_every_script_readable(tmp_path):
    question = Question("q", "which ?", (Answer("東京", 3),), "row")
    corpus = corpus_of([Passage("It 東京", (question,))], FAMILIES["roberta"].tokenizer())
    assemble(corpus, candidates_of(corpus, (0, "東京", 4)), null_of(1), 1.0, no_answer=False).save(tmp_path)
    assert "東京" in (tmp_path / "predictions.json").read_text("utf-8")
    assert json.loads((tmp_path / "nbest_predictions.json").read_text("utf-8")) == {
        "q": [{"text": "東京", "probability": 1.0, "start_logit": 2.0, "end_logit": 2.0}]
    }


@pytest.mark.parametrize("no_answer", [True, False], ids=["with no answer", "always an answer"])
def test_files_are_byte_for_byte_those_of_json_dump(tmp_path, monkeypatch, no_answer):
    monkeypatch.setattr(listing, "_QUESTIONS_AT_ONCE", 3)
    texts = ["town", None, "river", "bridge", None, "town", "river"]
    corpus, random = corpus_with(*texts), np.random.default_rng(0)
    # The second question and the last have no candidate; there are tiny probabilities, and a zero of either sign.
    rows = [(number, text, score) for number in (0, 2, 3, 4, 5) for text, score in zip(
        ("river", "town", "bridge"), (-np.sort(-random.normal(0, 9, 3))), strict=True)]  # fmt: skip
    spans = candidates_of(corpus, *rows, (5, "river  bridge", -0.0))
    saved = assemble(corpus, spans, null_of(*random.normal(0, 9, 7)), 0.25, no_answer=no_answer)
    saved.save(tmp_path)
    content = {
        "predictions": saved.predictions,
        "null_odds": saved.null_odds,
        "nbest_predictions": {key: [span._asdict() for span in spans] for key, spans in saved.n_best.items()},
        "metrics": {**saved.metrics, "language": "squad"},
    }
    for name, expected in content.items():
        text = json.dumps(expected, indent=1, ensure_ascii=False) + "\n"
        assert (tmp_path / f"{name}.json").read_bytes() == text.encode(), name


def test_n_best_lists_are_made_some_at_a_time(monkeypatch):
    monkeypatch.setattr(listing, "_QUESTIONS_AT_ONCE", 3)
    corpus = corpus_with(*["town"] * 7)
    saved = assemble(corpus, candidates_of(corpus, (3, "town", 1)), null_of(*[0] * 7), 0.5, no_answer=True)
    parts = list(saved.spans.parts())
    assert [counts for counts, _ in parts] == [[1, 1, 1], [2, 1, 1], [1]]
    assert [columns.text for _, columns in parts] == [["", "", ""], ["town", "", "", ""], [""]]


@pytest.mark.parametrize("no_answer", [True, False], ids=["with no answer", "always an answer"])
def test_saved_evaluation_is_the_same_when_it_is_loaded(tmp_path, no_answer):
    corpus = corpus_with("town", None, "river")
    spans = candidates_of(corpus, (0, "town", 3), (0, "river", 1), (1, "bridge", 2), (2, "river", 5))
    saved = assemble(corpus, spans, null_of(1, 4, 2), 0.25, no_answer=no_answer)
    saved.save(tmp_path)
    loaded = Evaluation.load(tmp_path, corpus)
    assert loaded.metrics == saved.metrics
    assert loaded.predictions == saved.predictions
    assert loaded.null_odds == saved.null_odds
    assert loaded.n_best == saved.n_best


def test_rule_is_saved_with_the_scores_and_loaded_with_them(tmp_path):
    corpus = corpus_with("town")
    spans, null = candidates_of(corpus, (0, "town", 3)), null_of(1)
    assemble(corpus, spans, null, 0.25, no_answer=False, language=Language.GERMAN).save(tmp_path)
    path = tmp_path / "metrics.json"
    assert read(path) == {"exact_match": 100, "f1": 100, "total": 1, "loss": 0.25, "language": "de"}
    loaded = Evaluation.load(tmp_path, corpus)
    assert loaded.language is Language.GERMAN
    assert "language" not in loaded.metrics
    path.write_text(json.dumps({name: value for name, value in read(path).items() if name != "language"}))
    assert Evaluation.load(tmp_path, corpus).language is Language.SQUAD


def test_files_are_strict_json_whatever_the_logits_are_and_can_be_loaded(tmp_path):
    corpus = corpus_with("town", "river")
    spans = candidates_of(corpus, (0, "town", math.inf), (1, "river", 3))
    saved = assemble(corpus, spans, null_of(1, 2), math.nan, no_answer=True, threshold=0.0)
    saved.save(tmp_path)
    found = {path.stem: read(path) for path in tmp_path.glob("*.json")}
    assert found["null_odds"] == {"q0": None, "q1": -1.0}
    assert found["metrics"] == {**saved.metrics, "loss": None, "language": "squad"}
    [best, *_] = found["nbest_predictions"]["q0"]
    assert (best["text"], best["start_logit"]) == ("town", None)
    loaded = Evaluation.load(tmp_path, corpus)
    assert math.isnan(loaded.metrics["loss"])
    assert dataclasses.asdict(loaded)["null_odds"] == saved.null_odds
    assert loaded.predictions == saved.predictions == {"q0": "town", "q1": "river"}
