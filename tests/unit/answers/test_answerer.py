"""The answerer against evaluation, against all spans one by one, and against itself in other forms and batches."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from answerers import (
    ALL,
    CONTEXTS,
    MAX_ANSWER_LENGTH,
    ONE,
    QUESTIONS,
    TWO,
    assert_close,
    by_place,
    open_cpu,
    save_decisive,
    shapes,
    texts,
)
from passages import corpus_of

from qa_ray.answers import answerer as answering
from qa_ray.config.fine_tuning import WindowConfig
from qa_ray.data.collate import Collator
from qa_ray.data.windows import make_windows
from qa_ray.model.loading import learn_template
from qa_ray.schema import Answer, Passage, Question


@pytest.fixture(scope="module")
def decisive(saved, tmp_path_factory):
    """Saves a family's model with scores far apart; returns the folder and the model's evaluation."""

    def make(family, **options):
        folder = tmp_path_factory.mktemp(family)
        return folder, save_decisive(family, saved(family), folder, **options)

    return make


@pytest.fixture(scope="module")
def bert_folder(decisive):
    return decisive("bert", threshold=1.5)[0]


@pytest.fixture(scope="module")
def answerer(bert_folder):
    """A BERT that may say that there is no answer."""
    return open_cpu(bert_folder)


AGREEING = ["bert", "roberta", "roberta-untrimmed", "xlnet", "deberta", "modernbert", "llama", "gpt2"]


@pytest.mark.parametrize("family", AGREEING)
def test_answers_and_no_answers_are_those_of_evaluation(decisive, family):
    folder, result = decisive(family, evaluated=True)
    assert texts(open_cpu(folder)(QUESTIONS, CONTEXTS)) == [text.strip() for text in result.predictions.values()]


@pytest.mark.parametrize("family", AGREEING)
def test_without_a_threshold_the_answers_are_those_of_evaluation_without_no_answer(decisive, family):
    folder, result = decisive(family)
    answers = open_cpu(folder)(QUESTIONS, CONTEXTS)
    assert texts(answers) == [text.strip() for text in result.predictions.values()]
    assert all(answer["answer"] for answer in answers)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlnet"])
def test_answers_of_odd_texts_are_their_characters_and_those_of_evaluation(decisive, family):
    odd = ["東京 中 한국", "a", "👩\u200d👩\u200d👧 é e\u0301 ﬁ", "x" * 5000, "[SEP] [CLS] river <s> [PAD]"]
    odd.append("the word. " * 300)
    questions = [Question(f"q{number}", "?", (Answer(text[0], 0),), "row") for number, text in enumerate(odd)]
    passages = [Passage(text, (question,)) for text, question in zip(odd, questions, strict=True)]
    folder, result = decisive(family, passages=passages)
    answers = open_cpu(folder)("?", odd)
    assert texts(answers) == [text.strip() for text in result.predictions.values()]
    assert texts(answers) == [text[answer["start"] : answer["end"]] for text, answer in zip(odd, answers, strict=True)]
    assert all(texts(answers))


def test_threshold_decides_between_an_answer_and_none_as_in_evaluation(decisive):
    _, result = decisive("bert", evaluated=True)
    odds = sorted(result.null_odds.values())
    thresholds = [odds[0] - 1, *((low + high) / 2 for low, high in pairwise(odds)), odds[-1] + 1]
    answerer = open_cpu(decisive("bert")[0])
    num_empty = []
    for threshold in thresholds:
        answerer.settings = dataclasses.replace(answerer.settings, no_answer_threshold=threshold)
        answers = texts(answerer(QUESTIONS, CONTEXTS))
        assert [not text for text in answers] == [score > threshold for score in result.null_odds.values()]
        num_empty.append(sum(not text for text in answers))
    assert num_empty == [6, 5, 4, 3, 2, 1, 0]


def all_spans(answerer, question, context, window):
    """Score and place of every legal span, from windows run one by one, and the lowest CLS score."""
    corpus = corpus_of([Passage(context, (Question("q", question, (), "r"),))], answerer.tokenizer)
    template = learn_template(answerer.tokenizer, answerer.model.config)
    windows = make_windows(corpus, window, template)
    collate = Collator(corpus, windows, template, 1, window.max_length)
    starts, ends = corpus.offsets(0)
    scores, null = {}, math.inf
    for number in range(len(windows)):
        batch = collate(np.array([number]))
        with torch.no_grad():
            outputs = answerer.model(**batch.inputs)
        start, end = outputs.start_logits[0].tolist(), outputs.end_logits[0].tolist()
        null = min(null, start[windows.cls_index[number]] + end[windows.cls_index[number]])
        shift = int(windows.context_begin[number] - windows.first[number])
        for first in range(windows.first[number], windows.last[number]):
            for last in range(first, min(first + MAX_ANSWER_LENGTH, windows.last[number])):
                score = start[first + shift] + end[last + shift]
                scores[first, last] = max(scores.get((first, last), score), score)
    assert len(windows) > 2
    return [(score, int(starts[first]), int(ends[last])) for (first, last), score in scores.items()], null


@pytest.mark.parametrize("threshold", [None, 0.0, 1.5], ids=["always an answer", "no threshold", "threshold"])
@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_scores_are_a_softmax_over_all_spans(decisive, family, threshold):
    answerer = open_cpu(decisive(family, threshold=threshold or None)[0])
    allowed = {None: None, 0.0: True, 1.5: None}[threshold]
    window = WindowConfig(max_length=answerer.settings.max_length, stride=answerer.settings.stride)
    question, context = QUESTIONS[1], max(CONTEXTS, key=len).replace(" ", ".")
    spans, null = all_spans(answerer, question, context, window)
    if threshold is not None:
        spans.append((null - threshold, 0, 0))
    total = np.logaddexp.reduce([score for score, *_ in spans])
    # The best comes last and stays; tokens without a character are at the place of the next one.
    expected = {tuple(place): math.exp(score - total) for score, *place in sorted(spans)}
    if threshold is None:
        expected.pop((0, 0), None)

    answers = answerer(question, context, top_k=ALL, handle_impossible_answer=allowed)
    assert by_place(answers) == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert all(answer["answer"] == context[answer["start"] : answer["end"]] for answer in answers)
    if family == "bert":
        assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-5)


def test_answers_are_sorted_distinct_and_fewer_with_a_smaller_top_k(answerer):
    everything = answerer(QUESTIONS, CONTEXTS, top_k=ALL)
    for answers in everything:
        assert [answer["score"] for answer in answers] == sorted((a["score"] for a in answers), reverse=True)
        assert len({(answer["start"], answer["end"]) for answer in answers}) == len(answers)
    for top_k in (2, 9):
        assert answerer(QUESTIONS, CONTEXTS, top_k=top_k) == [answers[:top_k] for answers in everything]
    assert answerer(QUESTIONS, CONTEXTS) == [answers[0] for answers in everything]


def test_no_answer_is_among_the_answers_once_where_it_is_allowed(answerer):
    for allowed, number in ((None, 1), (True, 1), (False, 0)):
        answers = answerer(QUESTIONS[0], CONTEXTS[0], top_k=ALL, handle_impossible_answer=allowed)
        empty = [answer for answer in answers if not answer["answer"]]
        assert len(empty) == number
        assert all((answer["start"], answer["end"]) == (0, 0) for answer in empty)


def test_widened_answers_are_found_however_many_spans_become_the_same(answerer):
    context = "riverbridgecityauthor, universitytemperature."
    arguments = {"handle_impossible_answer": False, "max_answer_len": 30, "max_seq_len": 100}
    plain = answerer("Who?", context, top_k=ALL, **arguments)
    assert len(plain) > 20
    answers = answerer("Who?", context, top_k=ALL, align_to_words=True, **arguments)
    expected = {(0, 21), (0, 22), (0, 44), (0, 45), (21, 22), (21, 44), (21, 45), (23, 44), (23, 45), (44, 45)}
    assert {(answer["start"], answer["end"]) for answer in answers} == expected
    assert len(answers) == len(expected)
    assert answers[0]["score"] == pytest.approx(plain[0]["score"], abs=1e-6)
    for top_k in (1, 4, 9):
        few = answerer("Who?", [context, *CONTEXTS], top_k=top_k, align_to_words=True, **arguments)
        assert_close([few[0]] if top_k > 1 else [[few[0]]], [answers[:top_k]])
    once = shapes(answerer, "Who?", context, top_k=1, **arguments)
    assert shapes(answerer, "Who?", context, top_k=ALL, align_to_words=True, **arguments) == once, "runs no more often"


@pytest.mark.parametrize(
    ("form", "keywords"),
    [
        (([ONE[0], TWO[0]], [ONE[1], TWO[1]]), {}),
        (([{"question": q, "context": c} for q, c in (ONE, TWO)],), {}),
        ((), {"question": [ONE[0], TWO[0]], "context": [ONE[1], TWO[1]]}),
    ],
    ids=["lists", "dicts", "keywords"],
)
def test_several_inputs_give_a_list_in_their_order(answerer, form, keywords):
    singles = [answerer(*ONE), answerer(question=TWO[0], context=TWO[1])]
    assert all(single.keys() == {"score", "start", "end", "answer"} for single in singles)
    found = answerer(*form, **keywords)
    assert_close([[answer] for answer in found], [[answer] for answer in singles])
    assert [len(answers) for answers in answerer(*form, **keywords, top_k=3)] == [3, 3]


def test_shape_of_results_follows_the_inputs(answerer):
    assert isinstance(answerer({"question": ONE[0], "context": ONE[1]}), dict)
    assert len(answerer(*ONE, top_k=3)) == 3
    assert isinstance(answerer([ONE[0]], ONE[1])[0], dict)
    assert isinstance(answerer([ONE[0]], ONE[1], top_k=2)[0], list)
    assert answerer([]) == []
    assert type(answerer(*ONE)["score"]) is float
    assert type(answerer(*ONE)["start"]) is int


def test_answers_depend_neither_on_batches_nor_on_chunks_nor_on_order(answerer, bert_folder, monkeypatch):
    together = answerer(QUESTIONS, CONTEXTS, top_k=ALL)
    alone = [answerer(*pair, top_k=ALL) for pair in zip(QUESTIONS, CONTEXTS, strict=True)]
    assert_close(together, alone)
    assert_close(together, answerer(QUESTIONS[::-1], CONTEXTS[::-1], top_k=ALL)[::-1])
    assert_close(together, open_cpu(bert_folder, max_tokens=1)(QUESTIONS, CONTEXTS, top_k=ALL))
    assert answerer(QUESTIONS, CONTEXTS, top_k=ALL) == together
    sizes = []
    monkeypatch.setattr(answering, "_CHUNK_CHARACTERS", 300)
    monkeypatch.setattr(
        answering, "tokenize", lambda *given, plain=answering.tokenize: sizes.append(len(given[0])) or plain(*given)
    )
    assert_close(together, answerer(QUESTIONS, CONTEXTS, top_k=ALL))
    assert sum(sizes) == len(QUESTIONS)
    assert len(sizes) > 2
    assert max(sizes) > 1
