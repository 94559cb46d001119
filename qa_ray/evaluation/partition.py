"""The sum over all answer spans of an example, by which a span's score becomes a probability."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def log_partition(
    first: Sequence[int], start_logits: Sequence[Floats], end_logits: Sequence[Floats], *, max_answer_length: int
) -> float:
    """Log of the summed exp(score) of every distinct legal span of one example, in nats.

    A span is legal if some window holds it whole and it has at most max_answer_length tokens. One that stands in
    several windows counts once, with its best score, as in `join_windows`.

    Args:
        first: each window's first context token, in ascending order; the windows' ends ascend as well.
        start_logits: one array a window, of its context tokens only.
        end_logits: the same.
        max_answer_length: in tokens.

    Returns:
        The log; not finite where a logit is NaN or infinite.
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
    with np.errstate(invalid="ignore"):  # the caller looks for what is not finite
        return float(np.logaddexp.reduce(parts))


def _span_scores(start_logit: Floats, end_logit: Floats, reach: int) -> Floats:
    """Scores of the spans by first token and by length - 1, [tokens, reach]; -inf past the window's end."""
    padded = np.concatenate([end_logit, np.full(reach - 1, -np.inf, np.float32)])
    scores: Floats = np.lib.stride_tricks.sliding_window_view(padded, reach) + start_logit[:, None]
    return scores


def _log_sum(scores: Floats) -> float:
    top = scores.max(initial=-np.inf)
    if not np.isfinite(top):
        return float(top)
    return float(top + np.log(np.exp(scores - top).sum(dtype=np.float64)))
