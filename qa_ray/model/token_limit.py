"""How many padded tokens a device takes at once: as asked or as suits it, and fewer once its memory did not suffice."""

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from qa_ray.config.fine_tuning import AUTO
from qa_ray.data.collate import Collator
from qa_ray.errors import ClusterError
from qa_ray.schema import Int64s

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Memory that another process or a torn heap takes away may be there again a moment later.
_TRIES_OF_ONE_WINDOW = 3
_NONE, _AUTO = -1, -2
"""What stands for these in a tensor."""

_CPU_TOKENS = 1024
"""With more, a thread's matrix products are no faster, and windows of more unequal lengths are padded alike."""
_FEWEST_PER_THREAD = 256
"""With fewer, the threads of a large CPU would wait for each other."""
_GPU_TOKENS = (16_384, 65_536)
_GPU_SHARE = 16
"""The part of a GPU's memory, as a divisor, that the tensors of one layer may take."""
_USUAL_WIDTH = 768
_CACHES = Path("/sys/devices/system/cpu")


class TokenLimit:
    """The limit of one device, which its rank lowers by itself.

    Attributes:
        tokens: padded tokens that the device takes at once; None where no limit is known.
    """

    def __init__(
        self, configured: int | str | None, option: str, note: Callable[[str], object] = logger.warning
    ) -> None:
        """Begin with what is configured.

        Args:
            configured: tokens; AUTO where they are to be found out, None for no limit.
            option: how the user sets it.
            note: told of each limit that is lowered.
        """
        self.tokens = configured if isinstance(configured, int) else None
        self.option = option
        self._configured = configured
        self._note = note
        self._tries = 0

    @property
    def wanted(self) -> bool:
        """Whether it is to be found out, and is not known yet."""
        return self._configured == AUTO and self.tokens is None

    def choose(self, model: nn.Module, device: torch.device) -> None:
        """Where it is to be found out: as many as suit one forward pass without gradients."""
        if self.wanted:
            self.tokens = forward_tokens(model, device)

    def lower(self, num_windows: int, tokens: int) -> None:
        """Halve what did not fit: so many windows, and as many tokens of them and their padding.

        Raises:
            ClusterError: it was one window, again and again.
        """
        torch.cuda.empty_cache()  # does nothing where CUDA is not in use
        if num_windows > 1:
            self._tries = 0
            self.tokens = tokens // 2
            self._note(
                f"{self.option}: the device's memory does not hold {num_windows} windows of together {tokens} tokens; "
                f"from here on it takes at most {self.tokens} tokens at once"
            )
            return
        self._tries += 1
        if self._tries >= _TRIES_OF_ONE_WINDOW:
            raise ClusterError(
                f"the device's memory does not hold a single window of {tokens} tokens with this model: take a device "
                "with more memory, a smaller model or a smaller window; in training --train.gradient-checkpointing "
                "True needs less"
            )

    def fits(self) -> None:
        """Take note that a group was computed."""
        self._tries = 0

    def state(self) -> torch.Tensor:
        """What `restore` takes: what is configured and what holds now, int64 [2]."""
        return torch.tensor([_number(self._configured), _number(self.tokens)])

    def restore(self, saved: Sequence[torch.Tensor]) -> None:
        """Go on with the lowest of the limits that ranks had, unless something else is configured now."""
        found = [tokens for configured, tokens in (one.tolist() for one in saved) if configured == self._code]
        known = [tokens for tokens in found if tokens != _NONE]
        self.tokens = min(known) if known else self.tokens

    @property
    def _code(self) -> int:
        return _number(self._configured)


def forward_tokens(model: nn.Module, device: torch.device) -> int:
    """Padded tokens that suit one forward pass of `model` without gradients.

    On a CPU so many that what a layer computes stays in the cache, from where the next operation reads it; on a GPU as
    many as keep it busy, in a small part of its memory.
    """
    settings = getattr(model, "config", None)
    width = getattr(settings, "hidden_size", _USUAL_WIDTH)
    inner = getattr(settings, "intermediate_size", 4 * width)
    # In fp32, before and after an operation: the layer's input and output, and those of its activation function.
    bytes_per_token = 4 * 2 * (width + inner)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return _within(memory // _GPU_SHARE // bytes_per_token, *_GPU_TOKENS)
    threads = torch.get_num_threads()
    fewest = max(_CPU_TOKENS, threads * _FEWEST_PER_THREAD)
    return _within(cache_bytes() // bytes_per_token, fewest, threads * _CPU_TOKENS)


def cache_bytes(caches: Path = _CACHES) -> int:
    """Size of the largest cache of a core that this process runs on; 0 where the system does not say."""
    core = min(os.sched_getaffinity(0))
    sizes = [path.read_text().strip() for path in caches.glob(f"cpu{core}/cache/index*/size")]
    units = {"K": 2**10, "M": 2**20}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)


def _within(number: int, fewest: int, most: int) -> int:
    return max(fewest, min(number, most))


def _number(limit: int | str | None) -> int:
    if limit is None:
        return _NONE
    return limit if isinstance(limit, int) else _AUTO


def in_groups(
    collate: Collator, items: Int64s, limit: TokenLimit, compute: Callable[[Int64s], T]
) -> Iterator[tuple[Int64s, T]]:
    """Yield groups of `items` with what `compute` makes of them; groups become smaller where memory does not suffice.

    Raises:
        ClusterError: the device's memory does not hold a single window.
    """
    waiting = collate.groups(items, limit.tokens)
    while waiting:
        group = waiting[0]
        result = _unless_out_of_memory(compute, group)
        if result is None:
            limit.lower(len(group), math.prod(collate.shape(group)))
            waiting = collate.groups(np.concatenate(waiting), limit.tokens)
        else:
            limit.fits()
            yield group, result
            waiting = waiting[1:]


def _unless_out_of_memory(compute: Callable[[Int64s], T], group: Int64s) -> T | None:
    # What comes next must not stand in the handler: the error's traceback holds the tensors that did not fit.
    try:
        return compute(group)
    except torch.OutOfMemoryError:
        return None


def largest_fitting(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` for which `fits` holds, to within an eighth; 0 if it does not hold for 1."""
    low, high = 0, most + 1
    while high - low > max(1, low // 8):
        tried = min(2 * low or 1, most) if high > most else (low + high) // 2
        if fits(tried):
            low = tried
        else:
            high = tried
    return low
