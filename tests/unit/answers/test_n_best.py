import math

import pytest

from qa_ray.answers.n_best import Found, Span, distinct_spans, rank

CONTEXT = "In Prague, Charles IV."


def places(spans, *, limit=9, context=CONTEXT, align_to_words=False):
    scored = [Span(-float(number), *place) for number, place in enumerate(spans)]
    found = distinct_spans(scored, context, limit=limit, align_to_words=align_to_words)
    assert all(span.score == -float(number) for span, number in zip(found, kept(scored, found), strict=True))
    return [(span.start, span.end) for span in found]


def kept(scored, found):
    scores = [span.score for span in found]
    assert scores == sorted(scores, reverse=True)
    return [-score for score in scores]


def test_space_around_an_answer_is_left_out():
    assert places([(2, 9), (10, 18)]) == [(3, 9), (11, 18)]


def test_places_come_once_and_blank_ones_never():
    assert places([(2, 3), (2, 9), (3, 9), (5, 5), (9, 3), (3, 10)]) == [(3, 9), (3, 10)]


def test_no_more_places_than_asked_for():
    assert places([(0, 2), (2, 9), (3, 9), (11, 18)], limit=2) == [(0, 2), (3, 9)]


@pytest.mark.parametrize(
    ("context", "place", "widened"),
    [
        (CONTEXT, (4, 7), (3, 9)),
        (CONTEXT, (3, 9), (3, 9)),
        (CONTEXT, (9, 10), (9, 10)),
        (CONTEXT, (8, 12), (3, 18)),
        ("the cafe\u0301s", (5, 7), (4, 10)),
        ("1,692 ft", (2, 4), (2, 5)),
        ("शहर मुंबई है", (4, 7), (4, 9)),
        ("शहर मुंबई है", (7, 9), (4, 9)),
        ("می\u200cخواهم بروم", (3, 5), (0, 8)),
        ("its 👩\u200d👩\u200d👧 flag", (6, 7), (4, 9)),
        ("東京は日本の首都", (1, 3), (1, 3)),
        ("ไป น้ำท่วม", (3, 4), (3, 5)),
        ("את שלום\u200f.", (4, 6), (3, 7)),
    ],
    ids=[
        *("inside a word", "a word", "punctuation", "two words", "combining mark", "number with a comma"),
        *("Hindi begin", "Hindi end", "joiner", "emoji", "Chinese", "Thai", "direction mark"),
    ],
)
def test_answers_are_widened_to_words(context, place, widened):
    assert places([place], context=context, align_to_words=True) == [widened]


def test_answers_that_become_the_same_words_come_once():
    assert places([(4, 7), (5, 9), (11, 13)], align_to_words=True) == [(3, 9), (11, 18)]


def test_scores_are_shares_of_the_sum():
    [answer] = rank([Found(CONTEXT, [Span(2.0, 3, 9)], 3.0, 9.0)], limit=5, threshold=None)
    expected = {"score": pytest.approx(math.exp(-1)), "start": 3, "end": 9, "answer": "Prague", "context": 0}
    assert answer == expected


@pytest.mark.parametrize(("null_score", "place"), [(2.5, 0), (2.0, 1), (1.5, 1), (0.5, 2)])
def test_no_answer_stands_where_its_score_puts_it_and_joins_the_sum(null_score, place):
    spans = [Span(2.0, 3, 9), Span(1.0, 11, 18)]
    answers = rank([Found(CONTEXT, spans, 2.5, null_score)], limit=5, threshold=0.0)
    assert answers[place] == {"score": answers[place]["score"], "start": 0, "end": 0, "answer": "", "context": None}
    total = math.log(math.exp(2.5) + math.exp(null_score))
    expected = sorted([2.0, 1.0, null_score], reverse=True)
    assert [answer["score"] for answer in answers] == pytest.approx([math.exp(score - total) for score in expected])


def test_no_answer_counts_among_those_asked_for():
    answers = rank([Found(CONTEXT, [Span(2.0, 3, 9), Span(1.0, 11, 18)], 2.5, 1.5)], limit=2, threshold=0.0)
    assert [answer["answer"] for answer in answers] == ["Prague", ""]


def test_context_of_blank_tokens_gives_an_empty_answer():
    nothing = [{"score": 0.0, "start": 0, "end": 0, "answer": "", "context": None}]
    assert rank([Found(" ", [], 1.0, 0.0)], limit=1, threshold=None) == nothing


@pytest.mark.parametrize("threshold", [None, -1.0, 0.0, 1.5])
def test_contexts_compete_and_the_lowest_null_score_counts(threshold):
    first = Found(CONTEXT, [Span(2.0, 3, 9), Span(0.5, 11, 18)], 2.5, 4.0)
    second = Found("of Prague", [Span(1.0, 3, 9)], 1.5, 1.7)
    answers = rank([first, second], limit=9, threshold=threshold)
    expected = [(2.0, 3, 9, "Prague", 0), (1.0, 3, 9, "Prague", 1), (0.5, 11, 18, "Charles", 0)]
    total = math.exp(2.5) + math.exp(1.5)
    if threshold is not None:
        null = 1.7 - threshold
        expected = sorted([*expected, (null, 0, 0, "", None)], key=lambda row: -row[0])
        total += math.exp(null)
    assert [tuple(answer.values())[1:] for answer in answers] == [row[1:] for row in expected]
    assert [answer["score"] for answer in answers] == pytest.approx([math.exp(row[0]) / total for row in expected])
    assert rank([first, second], limit=2, threshold=threshold) == answers[:2]
