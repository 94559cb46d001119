import numpy as np
import pytest

from qa_ray.answers.inference import log_partition


def random_windows(rng, num_tokens, room, stride):
    """First tokens and logits of the windows of one context; every window has logits of its own."""
    firsts = [0]
    while firsts[-1] + room < num_tokens:
        firsts.append(firsts[-1] + room - stride)
    lengths = [min(room, num_tokens - first) for first in firsts]
    start, end = ([rng.normal(0, 5, length).astype(np.float32) for length in lengths] for _ in range(2))
    return firsts, start, end


def plain_sum(firsts, start, end, max_answer_length):
    """Log of the sum over a dict of all spans, each with its best score."""
    spans = {}
    for begin, starts, ends in zip(firsts, start, end, strict=True):
        for first in range(len(starts)):
            for last in range(first, min(first + max_answer_length, len(starts))):
                score = float(starts[first]) + float(ends[last])
                key = (begin + first, begin + last)
                spans[key] = max(spans.get(key, score), score)
    return np.logaddexp.reduce(list(spans.values()))


@pytest.mark.parametrize("max_answer_length", [1, 4, 100])
@pytest.mark.parametrize(
    ("num_tokens", "room", "stride"),
    [(1, 9, 2), (9, 9, 2), (30, 9, 0), (31, 9, 2), (30, 9, 6), (30, 9, 8)],
    ids=["one token", "one window", "nothing shared", "a little shared", "three windows share", "each token moves on"],
)
def test_sum_is_over_distinct_spans_with_their_best_scores(num_tokens, room, stride, max_answer_length):
    windows = random_windows(np.random.default_rng(num_tokens), num_tokens, room, stride)
    found = log_partition(*windows, max_answer_length=max_answer_length)
    assert found == pytest.approx(plain_sum(*windows, max_answer_length), abs=1e-5)


def test_large_logits_do_not_overflow():
    logits = [np.array([900.0, 1000.0], np.float32)]
    assert log_partition([0], logits, logits, max_answer_length=1) == pytest.approx(2000)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_sum_with_a_logit_that_is_not_finite_is_not_finite(bad):
    start, end = [np.array([1, bad, 0], np.float32)], [np.zeros(3, np.float32)]
    assert not np.isfinite(log_partition([0], start, end, max_answer_length=2))
