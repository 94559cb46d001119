"""Windows through a model: to n-best spans counted in context tokens, to null spans, and to sums over all spans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from qa_ray.answers.decode import Candidates, join_windows, window_candidates
from qa_ray.answers.n_best import NullSpans
from qa_ray.data.collate import Batch, Collator
from qa_ray.data.windows import Windows
from qa_ray.errors import ModelError
from qa_ray.model.compute import Logits, forward
from qa_ray.model.token_limit import TokenLimit, in_groups
from qa_ray.schema import Float32s, Int32s, Int64s


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


def decode_batch(
    logits: Logits, batch: Batch, windows: Windows, group: Int64s, *, n_best: int, max_answer_length: int
) -> DecodedBatch:
    """Find the n best spans of the windows `group` of which `batch` was made; they come back to the host."""
    best = window_candidates(
        logits.start,
        logits.end,
        batch.context_begin,
        batch.context_end,
        n_best=n_best,
        max_answer_length=max_answer_length,
    )
    # From places in the padded row to places among the context's tokens.
    shift = windows.first[group][:, None] - batch.context_begin.cpu().numpy()[:, None]
    cls = batch.cls_index[:, None]
    return DecodedBatch(
        windows.question[group],
        best.first.cpu().numpy() + shift,
        best.last.cpu().numpy() + shift,
        best.start_logit.cpu().numpy(),
        best.end_logit.cpu().numpy(),
        logits.start.gather(1, cls)[:, 0].cpu().numpy(),
        logits.end.gather(1, cls)[:, 0].cpu().numpy(),
    )


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
    log_partition: list[float]
    """Log of each example's summed exp(score) over all its legal spans."""


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
    found: list[DecodedBatch] = []
    start_logits: list[Float32s] = [np.empty(0, np.float32)] * len(windows)
    end_logits = start_logits.copy()

    def compute(group: Int64s) -> tuple[Batch, Logits, DecodedBatch]:
        batch = collator(group)
        on_device = batch.to(device)
        logits = forward(model, on_device)
        return (
            batch,
            logits,
            decode_batch(logits, on_device, windows, group, n_best=n_best, max_answer_length=max_answer_length),
        )

    for group, (batch, logits, decoded) in in_groups(collator, np.arange(len(windows)), limit, compute):
        decoded.require_finite(collator.corpus.record)
        found.append(decoded)
        begins, ends = batch.context_begin.tolist(), batch.context_end.tolist()
        start, end = logits.start.cpu().numpy(), logits.end.cpu().numpy()
        for row, window in enumerate(group.tolist()):
            context = slice(begins[row], ends[row])
            start_logits[window], end_logits[window] = start[row, context], end[row, context]
    bounds = np.searchsorted(windows.question, np.arange(len(collator.corpus) + 1)).tolist()
    sums = [
        log_partition(
            windows.first[begin:end].tolist(),
            start_logits[begin:end],
            end_logits[begin:end],
            max_answer_length=max_answer_length,
        )
        for begin, end in pairwise(bounds)
    ]
    return Scored(*join_batches(found, n_best=n_best), sums)


def log_partition(
    first: Sequence[int], start_logits: Sequence[Float32s], end_logits: Sequence[Float32s], *, max_answer_length: int
) -> float:
    """Log of the summed exp(score) of every distinct legal span of one example, in nats.

    A span is legal if some window holds it whole and it has at most max_answer_length tokens. One that stands in
    several windows counts once, with its best score, as in `join_windows`.

    Args:
        first: each window's first context token, in ascending order; the windows' ends ascend as well.
        start_logits: one array a window, of its context tokens only.
        end_logits: the same.
        max_answer_length: in tokens.
    """
    reach = min(max_answer_length, max(map(len, start_logits)))
    parts = []
    carried = np.empty((0, reach), np.float32)
    following = [*first[1:], first[-1] + len(start_logits[-1])]
    for begin, end, start_logit, end_logit in zip(first, following, start_logits, end_logits, strict=True):
        scores = _span_scores(start_logit, end_logit, reach)
        np.maximum(scores[: len(carried)], carried, out=scores[: len(carried)])
        # Spans that start before the next window's first token stand in no later window.
        parts.append(_log_sum(scores[: end - begin]))
        carried = scores[end - begin :]
    with np.errstate(invalid="ignore"):  # the caller has looked for what is not finite
        return float(np.logaddexp.reduce(parts))


def _span_scores(start_logit: Float32s, end_logit: Float32s, reach: int) -> Float32s:
    """Scores of the spans by first token and by length - 1, [tokens, reach]; -inf past the window's end."""
    padded = np.concatenate([end_logit, np.full(reach - 1, -np.inf, np.float32)])
    scores: Float32s = np.lib.stride_tricks.sliding_window_view(padded, reach) + start_logit[:, None]
    return scores


def _log_sum(scores: Float32s) -> float:
    top = scores.max(initial=-np.inf)
    if not np.isfinite(top):
        return float(top)
    return float(top + np.log(np.exp(scores - top).sum(dtype=np.float64)))
