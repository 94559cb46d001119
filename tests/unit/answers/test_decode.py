import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_ray.answers.decode import Candidates, WindowCandidates, join_windows, probabilities, window_candidates

Span = tuple[float, int, int]


def legal_spans(start: torch.Tensor, end: torch.Tensor, begin: int, stop: int, max_answer_length: int) -> list[Span]:
    """Every legal span of a window, best first, equal scores by first and last token."""
    spans = [
        (float(start[first] + end[last]), first, last)
        for first in range(begin, stop)
        for last in range(first, min(first + max_answer_length, stop))
    ]
    return sorted((span for span in spans if span[0] > -np.inf), key=lambda span: (-span[0], span[1], span[2]))


def usual_search(start: torch.Tensor, end: torch.Tensor, begin: int, stop: int, max_answer_length: int) -> list[float]:
    """Scores of the usual search, the 20 best starts with the 20 best ends, best first."""
    starts = np.argsort(start.numpy())[-1:-21:-1]
    ends = np.argsort(end.numpy())[-1:-21:-1]
    scores = [
        float(start[first] + end[last])
        for first in starts
        for last in ends
        if begin <= first <= last < stop and last - first < max_answer_length
    ]
    return sorted(scores, reverse=True)[:20]


@st.composite
def windows(draw: st.DrawFn, max_length: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits and context ranges of a few windows; few distinct values make ties, and some are -inf."""
    num_windows, length = draw(st.integers(1, 4)), draw(st.integers(1, max_length))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    distinct = draw(st.sampled_from([2, 5, 10**6]))
    logits = (random.integers(-distinct, distinct, (2, num_windows, length)) / 4).astype(np.float32)
    logits[random.random(logits.shape) < draw(st.sampled_from([0.0, 0.3]))] = -np.inf
    edges = np.sort(random.integers(0, length + 1, (num_windows, 2)), axis=1)
    start, end = torch.from_numpy(logits)
    begin, stop = torch.from_numpy(edges).T
    return start, end, begin, stop


def assert_exact(
    found: WindowCandidates,
    start: torch.Tensor,
    end: torch.Tensor,
    begin: torch.Tensor,
    stop: torch.Tensor,
    n_best: int,
    max_answer_length: int,
) -> None:
    num_windows, length = start.shape
    assert [tuple(tensor.shape) for tensor in found] == [(num_windows, n_best)] * 4
    assert ((found.last >= 0) & (found.last < length)).all()
    for window in range(num_windows):
        expected = legal_spans(start[window], end[window], int(begin[window]), int(stop[window]), max_answer_length)
        scores = [score for score, _, _ in expected[:n_best]]
        assert found.score[window].tolist() == scores + [-np.inf] * (n_best - len(scores))
        columns = (found.score, found.first, found.last)
        spans = list(zip(*(column[window, : len(scores)].tolist() for column in columns), strict=True))
        assert spans == expected[:n_best]
        for rank, (_, first, last) in enumerate(spans):
            assert found.start_logit[window, rank] == start[window, first]
            assert found.end_logit[window, rank] == end[window, last]


@settings(deadline=None, max_examples=200)
@given(windows(), st.integers(1, 25), st.integers(1, 45))
def test_window_candidates_are_the_best_of_all_legal_spans(
    logits: tuple[torch.Tensor, ...], n_best: int, max_answer_length: int
) -> None:
    start, end, begin, stop = logits
    found = window_candidates(start, end, begin, stop, n_best=n_best, max_answer_length=max_answer_length)
    assert_exact(found, start, end, begin, stop, n_best, max_answer_length)


@settings(deadline=None, max_examples=20)
@given(windows(max_length=200))
def test_long_windows_are_searched_exactly(logits: tuple[torch.Tensor, ...]) -> None:
    start, end, begin, stop = logits
    found = window_candidates(start, end, begin, stop, n_best=3, max_answer_length=30)
    assert_exact(found, start, end, begin, stop, 3, 30)


@settings(deadline=None, max_examples=50)
@given(windows(max_length=120))
def test_no_example_scores_below_the_usual_search(logits: tuple[torch.Tensor, ...]) -> None:
    start, end, begin, stop = logits
    found = window_candidates(start, end, begin, stop, n_best=20, max_answer_length=30)
    for window in range(len(start)):
        usual = usual_search(start[window], end[window], int(begin[window]), int(stop[window]), 30)
        assert all(ours >= theirs for ours, theirs in zip(found.score[window].tolist(), usual, strict=False))


def test_span_missed_by_the_usual_search_is_found() -> None:
    # The 20 best ends all lie before the best start, so the usual search pairs it with none of them.
    start, end = torch.zeros(1, 50), torch.zeros(1, 50)
    start[0, 40], end[0, :20] = 100.0, 5.0
    begin, stop = torch.tensor([0]), torch.tensor([50])
    found = window_candidates(start, end, begin, stop, n_best=20, max_answer_length=5)
    assert usual_search(start[0], end[0], 0, 50, 5) == []
    assert found.score[0, 0] == 100.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_any_float_type_is_scored_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 3, 60, generator=generator).to(dtype)
    begin, stop = torch.tensor([5, 0, 20]), torch.tensor([60, 31, 25], dtype=torch.int32)
    found = window_candidates(start, end, begin, stop, n_best=20, max_answer_length=7)
    assert found.start_logit.dtype == found.end_logit.dtype == torch.float32
    assert_exact(found, start.float(), end.float(), begin, stop, 20, 7)


@pytest.mark.parametrize("n_best", [1, 3, 20])
def test_equal_spans_survive_by_place_however_far_a_batch_is_padded(n_best: int) -> None:
    start, end = torch.randint(0, 2, (2, 8, 100), generator=torch.Generator().manual_seed(0)).float()
    begin, stop = torch.full((8,), 10), torch.full((8,), 90)
    plain = window_candidates(start, end, begin, stop, n_best=n_best, max_answer_length=9)
    assert_exact(plain, start, end, begin, stop, n_best, 9)
    for left, right in [(0, 4), (0, 28), (0, 412), (7, 0), (61, 300)]:
        padded = (torch.nn.functional.pad(logits, (left, right), value=-np.inf) for logits in (start, end))
        found = window_candidates(*padded, begin + left, stop + left, n_best=n_best, max_answer_length=9)
        assert torch.equal(found.first - left, plain.first)
        assert torch.equal(found.last - left, plain.last)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf], ids=str)
@pytest.mark.parametrize("side", [0, 1], ids=["start", "end"])
@pytest.mark.parametrize("length", [3, 30, 400])
@pytest.mark.parametrize("n_best", [1, 20])
def test_a_logit_that_is_no_number_shows_in_the_first_span(value: float, side: int, length: int, n_best: int) -> None:
    logits = torch.randn(2, length, length, generator=torch.Generator().manual_seed(0))
    logits[side, torch.arange(length), torch.arange(length)] = value  # another place in each window
    edges = torch.zeros(length, dtype=torch.int64), torch.full((length,), length)
    found = window_candidates(*logits, *edges, n_best=n_best, max_answer_length=7)
    assert not found.score[:, 0].isfinite().any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_logits_outside_the_context_do_not_matter(value: float) -> None:
    start, end = torch.randn(2, 2, 30, generator=torch.Generator().manual_seed(0))
    begin, stop = torch.tensor([4, 9]), torch.tensor([20, 30])
    expected = window_candidates(start, end, begin, stop, n_best=5, max_answer_length=6)
    position = torch.arange(30)
    outside = (position < begin[:, None]) | (position >= stop[:, None])
    start, end = start.masked_fill(outside, value), end.masked_fill(outside, value)
    found = window_candidates(start, end, begin, stop, n_best=5, max_answer_length=6)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", [(0, 12), (2, 0), (2, 12)], ids=["no window", "no token", "no context"])
def test_window_without_legal_spans_has_only_filling(shape: tuple[int, int]) -> None:
    edge = torch.full((shape[0],), min(shape[1], 7))
    found = window_candidates(torch.zeros(shape), torch.zeros(shape), edge, edge, n_best=4, max_answer_length=3)
    assert [tuple(tensor.shape) for tensor in found] == [(shape[0], 4)] * 4
    assert (found.score == -np.inf).all()


def test_logits_that_need_a_gradient_are_accepted() -> None:
    start = torch.zeros(1, 8, requires_grad=True)
    edges = torch.tensor([0]), torch.tensor([8])
    assert not window_candidates(start, start * 1, *edges, n_best=2, max_answer_length=3).start_logit.requires_grad


def expected_join(rows: list[tuple[int, Span]], n_best: int) -> list[tuple[int, int, int, float]]:
    best: dict[tuple[int, int, int], float] = {}
    for example, (score, first, last) in rows:
        if score > -np.inf:
            best[example, first, last] = max(score, best.get((example, first, last), -np.inf))
    joined = []
    for example in sorted({key[0] for key in best}):
        spans = [(example, first, last, score) for (of, first, last), score in best.items() if of == example]
        joined += sorted(spans, key=lambda span: (-span[3], span[1], span[2]))[:n_best]
    return joined


def as_tuples(candidates: Candidates) -> list[tuple[int, int, int, float]]:
    columns = (candidates.example, candidates.first_token, candidates.last_token, candidates.score)
    return list(zip(*(column.tolist() for column in columns), strict=True))


score_values = st.sampled_from([-np.inf, -2.0, -0.5, 0.0, 0.25, 1.0, 3.0])
candidate_rows = st.lists(st.tuples(st.integers(0, 3), st.tuples(score_values, st.integers(0, 4), st.integers(4, 6))))


@settings(deadline=None, max_examples=200)
@given(candidate_rows, st.integers(1, 6))
def test_joined_flat_candidates_are_distinct_and_best_first(rows: list[tuple[int, Span]], n_best: int) -> None:
    example = np.array([row[0] for row in rows], dtype=np.int64)
    score = np.array([row[1][0] for row in rows], dtype=np.float32)
    first, last = (np.array([row[1][place] for row in rows], dtype=np.int32) for place in (1, 2))
    joined = join_windows(example, first, last, score, np.zeros_like(score), n_best=n_best)
    assert as_tuples(joined) == expected_join(rows, n_best)


@settings(deadline=None, max_examples=100)
@given(windows(), st.integers(1, 12), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_joined_windows_hold_the_best_spans_of_each_example(
    logits: tuple[torch.Tensor, ...], n_best: int, examples: list[int]
) -> None:
    start, end, begin, stop = logits
    found = window_candidates(start, end, begin, stop, n_best=n_best, max_answer_length=8)
    example = np.array(examples[: len(start)])
    # Windows that start three tokens apart see many spans of an example twice.
    shift = 3 * np.arange(len(start))[:, None]
    tokens = (found.first.numpy() + shift, found.last.numpy() + shift)
    joined = join_windows(example, *tokens, found.start_logit.numpy(), found.end_logit.numpy(), n_best=n_best)
    rows = [
        (int(example[window]), (score, first + int(shift[window, 0]), last + int(shift[window, 0])))
        for window in range(len(start))
        for score, first, last in legal_spans(start[window], end[window], int(begin[window]), int(stop[window]), 8)
    ]
    expected = expected_join(rows, n_best)
    ours = as_tuples(joined)
    assert [(span[0], span[3]) for span in ours] == [(span[0], span[3]) for span in expected]
    assert len({span[:3] for span in ours}) == len(ours)


def test_span_of_two_windows_counts_once_with_its_best_logits() -> None:
    example = np.array([7, 2, 7])
    first = np.array([[5, 1], [3, 4], [8, 5]], dtype=np.int32)
    last = np.array([[6, 1], [3, 4], [8, 6]], dtype=np.int32)
    start = np.array([[2.0, 1.0], [9.0, 8.0], [6.0, 3.0]], dtype=np.float32)
    joined = join_windows(example, first, last, start, np.full_like(start, 0.5), n_best=3)
    assert as_tuples(joined) == [(2, 3, 3, 9.5), (2, 4, 4, 8.5), (7, 8, 8, 6.5), (7, 5, 6, 3.5), (7, 1, 1, 1.5)]
    assert joined.example.dtype == np.int64
    assert joined.first_token.dtype == joined.last_token.dtype == np.int32


def test_zeros_of_either_sign_are_equal_scores() -> None:
    start = torch.tensor([[-0.0, 0.0]])
    found = window_candidates(start, start, torch.tensor([0]), torch.tensor([2]), n_best=3, max_answer_length=2)
    assert list(zip(found.first[0].tolist(), found.last[0].tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1)]
    tokens = np.array([3, 2], dtype=np.int32)
    logits = np.array([0.0, -0.0], dtype=np.float32)
    joined = join_windows(np.array([0, 0]), tokens, tokens, logits, logits, n_best=2)
    assert joined.first_token.tolist() == [2, 3]


def test_single_window_is_cut_to_n_best() -> None:
    tokens = np.arange(4, dtype=np.int32)[None]
    logits = np.arange(4, 0, -1, dtype=np.float32)[None]
    assert join_windows(np.array([5]), tokens, tokens, logits, logits, n_best=3).first_token.tolist() == [0, 1, 2]


def test_no_windows_join_to_no_candidates() -> None:
    none = np.zeros((0, 20), dtype=np.float32)
    joined = join_windows(np.zeros(0, dtype=np.int64), none, none, none, none, n_best=20)
    assert len(joined) == 0
    assert joined.first_token.dtype == np.int32


def some_candidates() -> Candidates:
    logits = np.array([1000.0, 999.0, 2.0, 0.5], dtype=np.float32)
    token = np.zeros(4, dtype=np.int32)
    return Candidates(np.array([0, 0, 2, 2]), token, token, logits, np.zeros_like(logits))


def test_probabilities_of_an_example_sum_to_one() -> None:
    probability, null = probabilities(some_candidates())
    assert null is None
    assert probability == pytest.approx(
        [1 / (1 + np.exp(-1)), 1 / (1 + np.e), 1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(1.5))]
    )


def test_null_score_takes_its_share_of_the_probability() -> None:
    probability, null = probabilities(some_candidates(), np.array([1000.0, 3.0, -1.0, np.inf], dtype=np.float32))
    assert null is not None
    assert probability[:2] == pytest.approx([1 / (2 + np.exp(-1)), np.exp(-1) / (2 + np.exp(-1))])
    assert [probability[:2].sum() + null[0], probability[2:].sum() + null[2]] == pytest.approx([1, 1])
    assert null[[1, 3]].tolist() == [1, 1]


def test_no_candidates_have_no_probabilities() -> None:
    nothing = join_windows(*(np.zeros(0, dtype=np.float32) for _ in range(5)), n_best=1)
    probability, null = probabilities(nothing, np.array([0.5], dtype=np.float32))
    assert probability.shape == (0,)
    assert null is not None
    assert null.tolist() == [1]
