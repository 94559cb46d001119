"""The sum over all legal spans of each question, by which scores become probabilities: for many windows at once."""

from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from qa_ray.data.collate import Batch
from qa_ray.data.windows import Windows
from qa_ray.model.compute import Logits
from qa_ray.schema import Float64s, Int64s

_SCORES_AT_ONCE = 2**22
"""Bounds the memory of spans that are scored one by one."""


class ContextLogits:
    """The logits of the context tokens of all windows, kept on their device.

    Attributes:
        windows: of which they are.
        start: fp32 [num_windows, width], by token of the window's context; -inf behind the last.
        end: the same.
    """

    def __init__(self, windows: Windows, device: torch.device) -> None:
        """Make room for the logits of `windows`, which are -inf until they are kept."""
        width = int((windows.last - windows.first).max(initial=0))
        self.windows = windows
        self.start = torch.full((len(windows), width), -torch.inf, device=device)
        self.end = self.start.clone()

    def keep(self, group: Int64s, logits: Logits, batch: Batch) -> None:
        """Keep the logits of the windows `group`, of which `batch` was made."""
        rows = _on(self.start, group)
        column = batch.context_begin[:, None] + _places(self.start)
        outside = column >= batch.context_end[:, None]
        column.clamp_(max=logits.start.shape[1] - 1)
        for kept, given in ((self.start, logits.start), (self.end, logits.end)):
            kept[rows] = given.gather(1, column).masked_fill_(outside, -torch.inf)


def log_partition(logits: ContextLogits, *, max_answer_length: int) -> Float64s:
    """Log of the summed exp(score) of every distinct legal span of each question, in nats, [num_questions].

    A span is legal if some window holds it whole and it has at most max_answer_length tokens. One that stands in
    several windows counts once, with its best score, as in `join_windows`. Every question has a window; both the first
    tokens and the ends of its windows ascend.
    """
    windows = logits.windows
    if not len(windows):
        return np.empty(0)
    reach = min(max_answer_length, logits.start.shape[1])
    followed = np.append(windows.question[1:] == windows.question[:-1], False)
    # Where the next window begins and the one before ends, counted in the window's own tokens.
    shared_from = np.where(followed, np.append(windows.first[1:], 0), windows.last) - windows.first
    shared_until = np.where(np.roll(followed, 1), np.roll(windows.last, 1), windows.first) - windows.first
    sums = _sums_of_one_window(logits, shared_from, shared_until, reach)
    sharing = np.flatnonzero(shared_from < windows.last - windows.first)
    if len(sharing):
        width = int((windows.last - windows.first - shared_from)[sharing].max())
        for rows in np.array_split(sharing, -(-len(sharing) * width * reach // _SCORES_AT_ONCE)):
            place = _on(sums, rows)
            sums[place] = sums[place].logaddexp(_sums_of_shared(logits, rows, shared_until[rows], width, reach))
    begins = np.flatnonzero(np.diff(windows.question, prepend=-1))
    found: Float64s = np.logaddexp.reduceat(sums.cpu().numpy().astype(np.float64), begins)
    return found


def _sums_of_one_window(logits: ContextLogits, shared_from: Int64s, shared_until: Int64s, reach: int) -> Tensor:
    """Log-sums over the spans that no other window holds: they begin before the next one and end behind the last."""
    place = _places(logits.start)
    start = logits.start.masked_fill(place >= _on(logits.start, shared_from)[:, None], -torch.inf)
    end = logits.end.masked_fill(place < _on(logits.end, shared_until)[:, None], -torch.inf)
    return (start + _sliding_log_sum(pad(end, (0, reach - 1), value=-torch.inf), reach)).logsumexp(1)


def _sums_of_shared(logits: ContextLogits, rows: Int64s, shared_until: Int64s, width: int, reach: int) -> Tensor:
    """Log-sums over the spans, with their best scores, that the windows `rows` are the first but not the last to hold.

    They lie in `width` tokens from the beginning of the next window on, and end behind the window before.
    """
    windows = logits.windows
    last = windows.last[rows, None]
    token = windows.first[rows + 1, None] + np.arange(width)
    ending = (token < last) & (token >= (windows.first[rows] + shared_until)[:, None])
    best = torch.full((len(rows), width, reach), -torch.inf, device=logits.start.device)
    for step in count():
        other = np.minimum(rows + step, len(windows) - 1)
        place = token - windows.first[other, None]
        same = (other == rows + step) & (windows.question[other] == windows.question[rows])
        inside = same[:, None] & (place >= 0) & (token < last)
        if not inside.any():
            break
        column = _on(best, np.clip(place, 0, logits.start.shape[1] - 1))
        start, end = (kept[_on(best, other)].gather(1, column) for kept in (logits.start, logits.end))
        start = start.masked_fill(_on(best, ~inside), -torch.inf)
        end = end.masked_fill(_on(best, ~(inside & ending)), -torch.inf)
        ends = pad(end, (0, reach - 1), value=-torch.inf).unfold(1, reach, 1)
        torch.maximum(best, start[:, :, None] + ends, out=best)
    return best.flatten(1).logsumexp(1)


def _sliding_log_sum(values: Tensor, width: int) -> Tensor:
    """Log of the sum of exp(values[:, i : i + width]) for every i: [W, L] -> [W, L - width + 1]."""
    length = values.shape[1] - width + 1
    found = torch.full_like(values[:, :length], -torch.inf)
    done, size = 0, 1
    while True:
        if width & size:
            found = found.logaddexp(values[:, done : done + length])
            done += size
        if done == width:
            return found
        values = values[:, :-size].logaddexp(values[:, size:])
        size *= 2


def _places(values: Tensor) -> Tensor:
    return torch.arange(values.shape[1], device=values.device)


def _on(values: Tensor, array: npt.NDArray[Any]) -> Tensor:
    """The array where `values` are."""
    return torch.from_numpy(array).to(values.device, non_blocking=True)
