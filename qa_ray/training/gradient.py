"""A rank's part of a step: the gradient of its share of the batch, in micro-batches that its device's memory holds.

Where memory does not suffice, the rank does its share of the same step again in smaller micro-batches, and the others
wait for it: the sum is the same. That works as long as gradients are not being exchanged. So micro-batches of a size
that has not been computed before are computed first, and the exchange comes with a window that has no weight; all
others are exchanged while the last micro-batch's gradient is computed.
"""

import contextlib
import math

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from qa_ray.config.fine_tuning import BatchConfig
from qa_ray.data.batching import share_of_rank
from qa_ray.data.collate import Collator
from qa_ray.model.compute import forward, span_loss
from qa_ray.model.token_limit import TokenLimit, largest_fitting
from qa_ray.schema import Int64s
from qa_ray.training.prefetch import Prefetcher
from qa_ray.training.throughput import Meter


class ShareGradient:
    """Adds this rank's share of the gradient of a batch's mean loss; every rank calls it for the same batches.

    Attributes:
        limit: of the rank's own device.
        batches: makes its micro-batches.
    """

    def __init__(
        self,
        config: BatchConfig,
        collator: Collator,
        model: nn.Module,
        accelerator: Accelerator,
        meter: Meter,
        limit: TokenLimit,
    ) -> None:
        """Prepare for `model` as the accelerator has wrapped it; `meter` counts what is computed."""
        self.limit = limit
        self.batches = Prefetcher(collator, accelerator.device)
        self._config = config
        self._collate = collator
        self._lengths = collator.windows.length
        self._model = model
        self._accelerator = accelerator
        self._meter = meter
        # By width, the most rows that were computed at once.
        self._computed: dict[int, int] = {}

    def __call__(self, batch: Int64s, following: Int64s | None = None) -> None:
        """Add the gradient of `batch`.

        Args:
            batch: window numbers.
            following: those of the next step, if there is one; they may be prepared meanwhile.

        Raises:
            ClusterError: the device's memory does not hold a single window.
            RuntimeError: it did not suffice while gradients were exchanged; workers that start anew may succeed.
        """
        accelerator = self._accelerator
        if self.limit.wanted and accelerator.device.type == "cuda":
            self._find_limit()
        share = self._share(batch)
        if self.batches.ahead:
            self.batches.prepare([] if following is None else self._groups(self._share(following)))
        random = _random_states(accelerator.device)
        while (failed := self._add(share, len(batch))) is not None:
            self.limit.lower(len(failed), math.prod(self._collate.shape(failed)))
            self._model.zero_grad()
            _set_random_states(random)
        self.limit.fits()

    def _share(self, batch: Int64s) -> Int64s:
        """The windows of a batch that this rank takes."""
        accelerator = self._accelerator
        return share_of_rank(batch, self._lengths, accelerator.process_index, accelerator.num_processes)

    def _groups(self, share: Int64s) -> list[Int64s]:
        """A share's micro-batches."""
        return self._collate.groups(share, self.limit.tokens)

    def _add(self, share: Int64s, batch_size: int) -> Int64s | None:
        """Add the share's gradient; returns the group for which memory did not suffice, if there is one."""
        together = self._accelerator.num_processes
        groups = self._groups(share)
        # Gradients are averaged over the ranks, so the batch's mean needs each rank's sum times the number of ranks.
        scale = together / batch_size
        exchanged = together == 1 or (bool(groups) and all(map(self._was_computed, groups)))
        losses = []
        # Around all of them, so that weights are converted for mixed precision once a step.
        with self._accelerator.autocast():
            for number, group in enumerate(groups):
                exchanging = exchanged and number == len(groups) - 1
                # Nothing else may stand in a handler: the error's traceback holds the tensors that did not fit.
                with contextlib.suppress(torch.OutOfMemoryError):
                    losses.append(self._add_group(group, scale, exchanged=exchanging and together > 1))
                if len(losses) <= number:
                    return group
        if not exchanged:
            self._exchange()
        for group, loss in zip(groups, losses, strict=True):
            rows, width = self._collate.shape(group)
            self._computed[width] = max(self._computed.get(width, 0), rows)
            self._meter.count(loss, len(group), int(self._lengths[group].sum()), rows * width)
        return None

    def _add_group(self, group: Int64s, scale: float, *, exchanged: bool) -> torch.Tensor:
        """Add a micro-batch's gradient, and with `exchanged` those of all before it to those of the other ranks."""
        accelerator = self._accelerator
        with contextlib.nullcontext() if exchanged else accelerator.no_sync(self._model):
            tensors = self.batches(group)
            loss = span_loss(forward(self._model, tensors), tensors)
            try:
                with torch.autocast(accelerator.device.type, enabled=False):
                    accelerator.backward(loss * scale)
            except torch.OutOfMemoryError as error:
                if exchanged:  # the others have parts of it, which cannot be taken back
                    raise RuntimeError(
                        "CUDA ran out of memory while gradients were exchanged, for as many windows as it had held "
                        f"before: lower {self.limit.option}"
                    ) from error
                raise
        return loss.detach()

    def _was_computed(self, group: Int64s) -> bool:
        rows, width = self._collate.shape(group)
        return any(wide >= width and most >= rows for wide, most in self._computed.items())

    def _exchange(self) -> None:
        """Join the all-reduce that all ranks wait for, by a window without weight; also of a rank without a share."""
        shortest = np.array([self._lengths.argmin()])
        with _random_numbers_kept(self._accelerator.device):
            while True:
                with contextlib.suppress(torch.OutOfMemoryError):
                    self._add_group(shortest, 0.0, exchanged=True)
                    return
                self.limit.lower(1, math.prod(self._collate.shape(shortest)))

    def _find_limit(self) -> None:
        """Find out how many of the longest windows fit, beside what the optimizer will keep."""
        longest = int(self._lengths.argmax())
        most = -(-self._config.size // self._accelerator.num_processes)
        with _random_numbers_kept(self._accelerator.device):
            number = largest_fitting(lambda number: self._fits(np.repeat(longest, number)), most)
        tokens = math.prod(self._collate.shape(np.array([longest])))
        if number == 0:
            self.limit.lower(1, tokens)
        else:
            self.limit.tokens = number * tokens

    def _fits(self, group: Int64s) -> bool:
        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        try:
            # Adam's two means, which come with the first step.
            kept = [torch.empty_like(weight) for weight in weights for _ in range(2)]
            self._add_group(group, 0.0, exchanged=False)
            del kept
        except torch.OutOfMemoryError:
            return False
        finally:
            self._model.zero_grad()
        return True


def _random_states(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Where torch's generators stand, of which dropout draws."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_states(states: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1])


def _random_numbers_kept(device: torch.device) -> contextlib.AbstractContextManager[None]:
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
