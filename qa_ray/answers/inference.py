"""Windows through a model: to n-best spans counted in context tokens, to null spans, and to sums over all spans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from qa_ray.answers.decode import Candidates, join_windows, window_candidates
from qa_ray.answers.n_best import NullSpans
from qa_ray.answers.partition import ContextLogits, log_partition
from qa_ray.data.collate import Batch, Collator
from qa_ray.data.windows import Windows
from qa_ray.errors import ModelError
from qa_ray.model.compute import Logits, forward
from qa_ray.model.token_limit import TokenLimit, in_groups
from qa_ray.schema import Float32s, Float64s, Int32s, Int64s

_SPANS_AT_ONCE = 2**17
"""Those that begin at the n best starts of all windows that are decoded at once: some 200 windows, as a rule."""
_LISTED_AT_ONCE = 2**22
"""The same, where lists may become long."""


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """One batch's spans in context tokens, [windows, n_best], and its scores of no answer, [windows]."""

    example: Int64s
    first: Int32s
    last: Int32s
    start_logit: Float32s
    end_logit: Float32s
    null_start: Float32s
    null_end: Float32s

    def require_finite(self, named: Callable[[int], str]) -> None:
        """Refuse logits that are no numbers, which these few tell of.

        Raises:
            ModelError: it names the question of the first window that holds such a logit, by its number in the corpus.
        """
        few = (self.start_logit[:, 0], self.end_logit[:, 0], self.null_start, self.null_end)
        broken = np.flatnonzero(~np.isfinite(few).all(axis=0))
        if len(broken):
            raise ModelError(
                f"{named(int(self.example[broken[0]]))}: the model's scores are not finite numbers: its weights are "
                "broken, or too large for this precision (try fp32)"
            )


class _Waiting(NamedTuple):
    """Windows of which the spans are still to be found."""

    group: Int64s
    logits: Logits
    context_begin: Tensor
    context_end: Tensor
    cls_index: Tensor


class Decoder:
    """Finds the n best spans of windows, batch by batch, and puts those of each example together.

    Small batches wait until there are several: to begin costs more than the spans of so few windows do.
    """

    def __init__(self, windows: Windows, *, n_best: int, max_answer_length: int, named: Callable[[int], str]) -> None:
        """Begin with none of the windows; `named` is how an example is called in an error."""
        self._windows = windows
        self._n_best = n_best
        self._max_answer_length = max_answer_length
        self._named = named
        self._waiting: list[_Waiting] = []
        self._found: list[DecodedBatch] = []

    def add(self, group: Int64s, logits: Logits, batch: Batch) -> None:
        """Take over the logits of the windows `group`, of which `batch` was made.

        Raises:
            ModelError: a logit is not a finite number, in these windows or in those that waited.
            torch.OutOfMemoryError: these windows are not taken over.
        """
        self._waiting.append(_Waiting(group, logits, batch.context_begin, batch.context_end, batch.cls_index))
        number = sum(len(one.group) for one in self._waiting)
        if number * self._n_best * self._max_answer_length >= _SPANS_AT_ONCE:
            try:
                self._decode()
            except torch.OutOfMemoryError:
                self._waiting.pop()
                raise

    def join(self) -> tuple[Candidates, NullSpans]:
        """The n best spans of each example of which there are windows, and its "no answer"."""
        if self._waiting:
            self._decode()
        return join_batches(self._found, n_best=self._n_best)

    def _decode(self) -> None:
        """Find the spans of all windows that wait; they come back to the host."""
        group = np.concatenate([one.group for one in self._waiting])
        width = max(one.logits.start.shape[1] for one in self._waiting)
        start, end = (
            torch.cat([pad(of_side, (0, width - of_side.shape[1]), value=-torch.inf) for of_side in side])
            for side in zip(*(one.logits for one in self._waiting), strict=True)
        )
        begin, stop, cls = (
            torch.cat(places)[:, None] for places in zip(*(one[2:] for one in self._waiting), strict=True)
        )
        best = window_candidates(
            start, end, begin[:, 0], stop[:, 0], n_best=self._n_best, max_answer_length=self._max_answer_length
        )
        begin, null = begin.int(), (start.gather(1, cls), end.gather(1, cls))
        first, last, best_start, best_end, null_start, null_end = _fetch(
            best.first - begin, best.last - begin, best.start_logit, best.end_logit, *null
        )
        # From places in the window's context to places among all tokens of the context.
        shift = self._windows.first[group][:, None].astype(np.int32)
        example = self._windows.question[group]
        found = DecodedBatch(
            example, first + shift, last + shift, best_start, best_end, null_start[:, 0], null_end[:, 0]
        )
        found.require_finite(self._named)
        self._found.append(found)
        self._waiting.clear()


def _fetch(*columns: Tensor) -> list[Any]:
    """Arrays of int32 and float32 tensors, [W, any], in one copy: each by itself would wait for the device."""
    packed = torch.cat([column.view(torch.int32) for column in columns], dim=1).cpu().numpy()
    parts = np.split(packed, np.cumsum([column.shape[1] for column in columns])[:-1], axis=1)
    return [
        np.ascontiguousarray(part).view(np.float32 if column.is_floating_point() else np.int32)
        for part, column in zip(parts, columns, strict=True)
    ]


def join_batches(found: Sequence[DecodedBatch], *, n_best: int) -> tuple[Candidates, NullSpans]:
    """Put the windows of each example together: its n best spans, and its "no answer"."""
    if not found:
        nothing, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        candidates = join_windows(nothing, nothing, nothing, scores, scores, n_best=1)
        return candidates, NullSpans.of(nothing, scores, scores)
    example, first, last, start, end, null_start, null_end = (
        np.concatenate([getattr(part, name) for part in found]) for name in DecodedBatch.__slots__
    )
    candidates = join_windows(example, first, last, start, end, n_best=n_best)
    return candidates, NullSpans.of(example, null_start, null_end)


class Scored(NamedTuple):
    """What a model makes of the examples of a corpus."""

    candidates: Candidates
    null: NullSpans
    """In the order of the examples."""
    log_partition: Float64s
    """Log of each example's summed exp(score) over all its legal spans."""
    logits: ContextLogits
    """From which longer lists can be made without the model: see `more_candidates`."""


@torch.inference_mode()
def score_corpus(
    model: torch.nn.Module,
    collator: Collator,
    *,
    device: torch.device,
    limit: TokenLimit,
    n_best: int,
    max_answer_length: int,
) -> Scored:
    """Run all windows of a corpus through a model in evaluation mode, as many at once as `limit` lets.

    Raises:
        ModelError: a logit is not a finite number.
        ClusterError: the device's memory does not hold a single window.
    """
    windows = collator.windows
    kept = ContextLogits(windows, device)
    decoder = Decoder(windows, n_best=n_best, max_answer_length=max_answer_length, named=collator.corpus.record)

    def compute(group: Int64s) -> Logits:
        batch = collator(group).to(device)
        logits = forward(model, batch)
        kept.keep(group, logits, batch)
        decoder.add(group, logits, batch)
        return logits

    for _ in in_groups(collator, np.arange(len(windows)), limit, compute):
        pass
    candidates, null = decoder.join()
    return Scored(candidates, null, log_partition(kept, max_answer_length=max_answer_length), kept)


@torch.inference_mode()
def more_candidates(logits: ContextLogits, examples: Int64s, *, n_best: int, max_answer_length: int) -> Candidates:
    """The n best spans of some examples from logits that are there, as `score_corpus` finds them."""
    windows, device = logits.windows, logits.start.device
    rows = np.flatnonzero(np.isin(windows.question, examples))
    at_once = max(1, _LISTED_AT_ONCE // (logits.start.shape[1] * max_answer_length))
    found = []
    for group in np.split(rows, range(at_once, len(rows), at_once)):
        place, length = (
            torch.from_numpy(column).to(device) for column in (group, (windows.last - windows.first)[group])
        )
        best = window_candidates(
            logits.start[place],
            logits.end[place],
            torch.zeros_like(length),
            length,
            n_best=n_best,
            max_answer_length=max_answer_length,
        )
        first, last, start, end = _fetch(*best)
        shift = windows.first[group][:, None].astype(np.int32)
        found.append((windows.question[group], first + shift, last + shift, start, end))
    return join_windows(*(np.concatenate(column) for column in zip(*found, strict=True)), n_best=n_best)
