"""The sum over all legal spans against its definition: a dict of all spans, each with its best score."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_ray.answers import partition
from qa_ray.answers.partition import ContextLogits, log_partition
from qa_ray.data.windows import Windows


def windows_of(contexts):
    """Windows of contexts of so many tokens with so much room, of which neighbours share `stride`."""
    rows = []
    for question, (num_tokens, room, stride) in enumerate(contexts):
        first = 0
        while not rows or rows[-1][0] < question or rows[-1][2] < num_tokens:
            rows.append((question, first, min(first + room, num_tokens)))
            first += room - stride
    question, first, last = np.array(rows).T
    nothing = np.zeros_like(question)
    return Windows(question, first, last, *[nothing] * 6, np.empty(0, np.int64))


def random_logits(windows, seed, scale=5.0):
    """Every window has logits of its own."""
    logits = ContextLogits(windows, torch.device("cpu"))
    random = torch.from_numpy(scale * np.random.default_rng(seed).normal(size=(2, *logits.start.shape))).float()
    inside = torch.arange(logits.start.shape[1]) < torch.from_numpy(windows.last - windows.first)[:, None]
    logits.start[inside], logits.end[inside] = random[0][inside], random[1][inside]
    return logits


def plain_sums(logits, max_answer_length):
    """Log of the sum over a dict of all spans of each question, each with its best score."""
    windows, spans = logits.windows, {}
    for row, (question, begin, end) in enumerate(zip(windows.question, windows.first, windows.last, strict=True)):
        of_question = spans.setdefault(int(question), {})
        for first in range(begin, end):
            for last in range(first, min(first + max_answer_length, end)):
                score = float(logits.start[row, first - begin]) + float(logits.end[row, last - begin])
                of_question[first, last] = max(of_question.get((first, last), score), score)
    return [np.logaddexp.reduce(list(scores.values())) for scores in spans.values()]


@pytest.mark.parametrize("max_answer_length", [1, 4, 100])
@pytest.mark.parametrize(
    "context",
    [(1, 9, 2), (9, 9, 2), (30, 9, 0), (31, 9, 2), (30, 9, 6), (30, 9, 8)],
    ids=["one token", "one window", "nothing shared", "a little shared", "three windows share", "each token moves on"],
)
def test_sum_is_over_distinct_spans_with_their_best_scores(context, max_answer_length):
    logits = random_logits(windows_of([context]), seed=context[0])
    assert log_partition(logits, max_answer_length=max_answer_length) == pytest.approx(
        plain_sums(logits, max_answer_length), abs=1e-5
    )


@st.composite
def contexts(draw):
    """Tokens of a context, the room of its windows, and what neighbours share."""
    room = draw(st.integers(1, 12))
    return draw(st.integers(1, 40)), room, draw(st.integers(0, room - 1))


@settings(deadline=None, max_examples=100)
@given(st.lists(contexts(), min_size=1, max_size=5), st.integers(1, 15), st.integers(0, 99), st.sampled_from([1, 30]))
def test_sums_of_many_questions_are_those_of_each(drawn, max_answer_length, seed, scale):
    logits = random_logits(windows_of(drawn), seed, scale)
    expected = plain_sums(logits, max_answer_length)
    assert log_partition(logits, max_answer_length=max_answer_length) == pytest.approx(expected, abs=1e-4)


def test_spans_that_are_scored_in_parts_give_the_same_sums(monkeypatch):
    logits = random_logits(windows_of([(60, 9, 6), (5, 9, 6), (40, 12, 11)]), seed=0)
    whole = log_partition(logits, max_answer_length=4)
    monkeypatch.setattr(partition, "_SCORES_AT_ONCE", 100)
    assert log_partition(logits, max_answer_length=4) == pytest.approx(whole, abs=1e-6)


def test_single_span_has_the_probability_one():
    logits = random_logits(windows_of([(1, 9, 0)]), seed=0)
    assert log_partition(logits, max_answer_length=5) == [float(logits.start[0, 0] + logits.end[0, 0])]


def test_no_windows_have_no_sums():
    assert log_partition(ContextLogits(windows_of([(1, 1, 0)]), torch.device("cpu")), max_answer_length=1) == [-np.inf]
    nothing = np.empty(0, np.int64)
    assert not len(log_partition(ContextLogits(Windows(*[nothing] * 10), torch.device("cpu")), max_answer_length=1))


def test_large_logits_neither_overflow_nor_hide_what_lies_far_from_them():
    logits = random_logits(windows_of([(40, 40, 0)]), seed=0, scale=0)
    logits.start[0, 0], logits.end[0, 30], logits.start[0, 10] = 1000, 1000, 900
    # No span of 25 tokens holds both large logits.
    assert log_partition(logits, max_answer_length=25) == pytest.approx([1900])
    assert log_partition(logits, max_answer_length=40) == pytest.approx([2000])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sum_with_a_logit_that_is_not_finite_is_not_finite(bad):
    logits = random_logits(windows_of([(3, 3, 0)]), seed=0)
    logits.start[0, 1] = bad
    assert not np.isfinite(log_partition(logits, max_answer_length=2)).any()
