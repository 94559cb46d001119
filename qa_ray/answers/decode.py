"""From start and end logits to the n best answer spans of each example, exactly and without a loop over spans.

Two stages. `window_candidates` runs on the device of the logits and finds the n best legal spans of every window;
`join_windows` puts the windows of an example together on the host. Only the n-best lists pass from one to the other.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, pad

from qa_ray.schema import Float32s, Int32s, Int64s

_Integers = npt.NDArray[np.integer[Any]]
_Arrays = tuple[npt.NDArray[Any], ...]

_INDEX_BITS = 32
_NEGATIVE_NANS = 0x7FFFFF


@dataclass(frozen=True, slots=True)
class Candidates:
    """The n best answer spans of many examples: arrays of one length, by example and then best score first."""

    example: Int64s
    first_token: Int32s
    """First context token of the span."""
    last_token: Int32s
    """Last context token of the span, inclusive."""
    start_logit: Float32s
    end_logit: Float32s

    @property
    def score(self) -> Float32s:
        """Start logit plus end logit."""
        return self.start_logit + self.end_logit

    def __len__(self) -> int:
        return len(self.example)


class WindowCandidates(NamedTuple):
    """The n best spans of each window, best first; all [W, n_best], equal scores ordered by first, then last."""

    first: Tensor
    """int32, position in the window."""
    last: Tensor
    """int32, position in the window, inclusive."""
    start_logit: Tensor
    """float32."""
    end_logit: Tensor
    """float32."""

    @property
    def score(self) -> Tensor:
        """Start logit plus end logit, float32; -inf where a window has fewer legal spans than n_best."""
        return self.start_logit + self.end_logit


def window_candidates(
    start_logits: Tensor,
    end_logits: Tensor,
    context_begin: Tensor,
    context_end: Tensor,
    *,
    n_best: int,
    max_answer_length: int,
) -> WindowCandidates:
    """Find the n best legal spans of every window.

    The logits are [W, L] of any float type; context_begin and context_end, integers [W], bound the positions that hold
    context (half open). A span is legal if it lies in the context and has at most max_answer_length tokens. Exact:
    a start that is not among the n best by (its logit + the best end logit in its reach) begins no n-best span,
    so only the n best starts are expanded. Logits outside the context may be anything, NaN included; where one within
    is NaN or infinite, the score of the window's first span is not finite.
    """
    num_windows, length = start_logits.shape
    reach = min(max_answer_length, length)
    if not start_logits.numel():
        nowhere = torch.zeros((num_windows, n_best), dtype=torch.int32, device=start_logits.device)
        nothing = torch.full(nowhere.shape, -math.inf, device=nowhere.device)
        return WindowCandidates(nowhere, nowhere, nothing, nothing)
    position = torch.arange(length, dtype=torch.int32, device=start_logits.device)
    inside = (position >= context_begin[:, None].int()) & (position < context_end[:, None].int())
    start = _masked(start_logits, inside, length)
    end = _masked(end_logits, inside, length + reach - 1)

    best_of_start = start + _sliding_max(end, reach)
    # In order of position, so that spans of equal score come out by first token, then by last.
    firsts = _sorted_rows(_best_indices(best_of_start, n_best))
    num_starts = firsts.shape[1]
    scores = _slices(end, firsts, reach).add_(start.gather(1, firsts)[:, :, None])
    span = _best_indices(scores.view(num_windows, num_starts * reach), n_best)

    which_start = span // reach
    first = firsts.gather(1, which_start)
    last = first + (span - which_start * reach)
    start_logit, end_logit = start.gather(1, first), end.gather(1, last)
    found = WindowCandidates(first.int(), last.clamp_(max=length - 1).int(), start_logit, end_logit)
    return found if span.shape[1] == n_best else _filled(found, n_best)


def join_windows(
    example: _Integers,
    first_token: _Integers,
    last_token: _Integers,
    start_logit: Float32s,
    end_logit: Float32s,
    *,
    n_best: int,
) -> Candidates:
    """Put the windows of each example together and keep its n best spans.

    example is [W], in any order; the others are [W, n], a row per window with tokens counted in the context, the spans
    of a row distinct and ordered as `window_candidates` leaves them. Flat [W] arrays are rows of one. Spans of score
    -inf are dropped. A span found in several windows counts once, with its best score. Equal scores are ordered by
    first token, then by last.
    """
    shape = (len(example), -1) if len(example) else (0, 0)
    columns = [a.reshape(shape) for a in (first_token, last_token, start_logit, end_logit)]
    _, inverse, counts = np.unique(example, return_inverse=True, return_counts=True)
    alone = counts[inverse] == 1
    # Most examples have one window, whose row is final as it stands.
    parts = [_legal(example[alone], *(column[alone, :n_best] for column in columns))]
    if not alone.all():
        parts.append(_merge(_legal(example[~alone], *(column[~alone] for column in columns)), n_best))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    types = (np.int64, np.int32, np.int32, np.float32, np.float32)
    return Candidates(*(column[order].astype(dtype, copy=False) for column, dtype in zip(joined, types, strict=True)))


def probabilities(candidates: Candidates, null_score: Float32s | None = None) -> tuple[Float32s, Float32s | None]:
    """Softmax over each example's n best scores and, where given, its null score.

    null_score is [num_examples] and indexed by example. Returns the probability of each candidate and, with
    null_score, of each example's "no answer": 1 where an example has no candidate.
    """
    score = candidates.score.astype(np.float64)
    num_examples = int(candidates.example[-1]) + 1 if len(candidates) else 0
    if null_score is not None:
        num_examples = max(num_examples, len(null_score))
    null = np.full(num_examples, -np.inf) if null_score is None else null_score.astype(np.float64)
    top = null.copy()
    np.maximum.at(top, candidates.example, score)
    weight = np.exp(score - top[candidates.example])
    null_weight = np.exp(np.minimum(null - np.where(np.isfinite(top), top, 0.0), 0.0))
    total = null_weight + np.bincount(candidates.example, weight, minlength=num_examples)
    candidate_probability = (weight / total[candidates.example]).astype(np.float32)
    return candidate_probability, None if null_score is None else (null_weight / total).astype(np.float32)


def _filled(found: WindowCandidates, n_best: int) -> WindowCandidates:
    """Lists shorter than n_best, filled up with spans of score -inf."""
    missing = (0, n_best - found.first.shape[1])
    tokens = (pad(found.first, missing), pad(found.last, missing))
    return WindowCandidates(*tokens, *(pad(logit, missing, value=-math.inf) for logit in found[2:]))


def _masked(logits: Tensor, mask: Tensor, width: int) -> Tensor:
    """Float32 logits [W, width] with -inf where the mask [W, L] is off, and right of it."""
    masked = torch.full((logits.shape[0], width), -math.inf, device=logits.device)
    view = masked[:, : logits.shape[1]]
    # Written through `out`: several times as fast on a CPU as masked_fill_ or a scalar in torch.where.
    torch.where(mask, logits.detach().float(), view, out=view)
    return masked


def _sliding_max(values: Tensor, width: int) -> Tensor:
    """Maximum over values[:, i : i + width] for every i, [W, L] -> [W, L - width + 1], in log2(width) steps."""
    done = 1
    while done < width:
        step = min(done, width - done)
        values = torch.maximum(values[:, :-step], values[:, step:])
        done += step
    return values


def _slices(values: Tensor, begins: Tensor, width: int) -> Tensor:
    """values[w, begins[w, k] : begins[w, k] + width] for every w and k: [W, L], [W, K] -> [W, K, width]."""
    num_rows, length = values.shape
    row_begin = torch.arange(0, num_rows * length, length, device=values.device)[:, None]
    overlapping = values.view(-1).as_strided((num_rows * length - width + 1, width), (1, 1))
    return overlapping.index_select(0, (begins + row_begin).view(-1)).view(*begins.shape, width)


def _best_indices(values: Tensor, n: int) -> Tensor:
    """Indices of the n largest of each row, best first, equal values by index: [W, L] -> [W, min(n, L)].

    NaN counts as the largest of all. Goes by groups of neighbours: the n groups of the largest maxima, equal ones by
    place, hold the n largest values. Two short sorts, of about sqrt(n * L) each, cost a fraction of one long selection.
    """
    num_rows, length = values.shape
    num_members = max(1, round(math.sqrt(length / n)))
    num_groups = -(-length // num_members)
    index = torch.arange(length, device=values.device)
    if num_members > 1 and num_groups > n:
        if length % num_members:
            values = pad(values, (0, num_members * num_groups - length), value=-math.inf)
        group_best = max_pool1d(values[:, None], num_members)[:, 0]
        group = _sorted_indices(group_best, index[:num_groups], n)
        index = (group[:, :, None] * num_members + index[:num_members]).view(num_rows, n * num_members)
        values = values.gather(1, index)
    return _sorted_indices(values, index, n)


def _sorted_indices(values: Tensor, index: Tensor, n: int) -> Tensor:
    """The entries of `index` of each row's n largest values, NaN and best first, equal values by index."""
    bits = (values + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    # Float32s compare as their bits do once negative ones are flipped; moved on by as many places as there are negative
    # NaNs, these wrap around to the others above infinity; inverted, the largest comes first.
    ascending = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits).sub_(_NEGATIVE_NANS)
    descending = ascending.bitwise_not_()
    keys = descending.to(torch.int64).bitwise_left_shift_(_INDEX_BITS).bitwise_or_(index)
    return _sorted_rows(keys)[:, :n] & ((1 << _INDEX_BITS) - 1)


def _sorted_rows(keys: Tensor) -> Tensor:
    """Each row of int64 keys in ascending order; `keys` may be overwritten."""
    if keys.device.type != "cpu":
        return keys.sort(dim=1).values
    # Sorts short rows with vector instructions: ten times as fast as torch.sort.
    keys.numpy().sort(axis=1)
    return keys


def _legal(example: _Integers, *columns: npt.NDArray[Any]) -> _Arrays:
    """The example and columns of every candidate with a score above -inf, flat."""
    start_logit, end_logit = columns[-2:]
    legal = start_logit + end_logit > -np.inf
    return np.repeat(example, legal.sum(axis=1)), *(column[legal] for column in columns)


def _merge(columns: _Arrays, n_best: int) -> _Arrays:
    """The n best distinct spans of each example, by example, score, first and last token."""
    if not len(columns[0]):
        return columns
    example, first, last, start_logit, end_logit = columns
    row = np.unique(example, return_inverse=True)[1]
    order = _best_first(row << 32 | _descending_bits(start_logit + end_logit), first, last)
    row, first, last = row[order], first[order].astype(np.int64), last[order]

    length = last - first
    span = (row * (first.max() + 1) + first) * (length.max() + 1) + length
    by_span = np.argsort(span)
    earliest = np.minimum.reduceat(by_span, _run_begins(span[by_span]))
    distinct = np.zeros(len(order), dtype=bool)
    distinct[earliest] = True
    order, row = order[distinct], row[distinct]

    begins = _run_begins(row)
    rank = np.arange(len(row)) - np.repeat(begins, np.diff(begins, append=len(row)))
    order = order[rank < n_best]
    return tuple(column[order] for column in columns)


def _best_first(key: Int64s, first: _Integers, last: _Integers) -> npt.NDArray[np.intp]:
    """The order by key, first and last; quick where the keys come in sorted runs and few are equal."""
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[order]) == 0)
    if len(same):
        place = np.union1d(same, same + 1)
        tied = order[place]
        order[place] = tied[np.lexsort((last[tied], first[tied], key[tied]))]
    return order


def _descending_bits(score: Float32s) -> Int64s:
    """Non-negative 32-bit integers that order as the scores do, best first; 0.0 and -0.0 are equal."""
    bits = (score + np.float32(0)).view(np.int32).astype(np.int64)
    return np.where(bits < 0, bits & 0xFFFFFFFF, 0x7FFFFFFF - bits)


def _run_begins(values: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.diff(values, prepend=values[0] - 1))
