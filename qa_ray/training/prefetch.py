"""Micro-batches made one step ahead, in a thread and in pinned memory, where a GPU computes meanwhile."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from qa_ray.data.collate import Batch
from qa_ray.schema import Int64s


class Prefetcher:
    """Makes batches of window numbers: at once, or ahead where that takes nothing from the model.

    On CPUs a thread would take from the model the time that it saves.

    Attributes:
        ahead: whether batches are made ahead.
    """

    def __init__(self, collate: Callable[[Int64s], Batch], device: torch.device) -> None:
        """Prepare to collate for a model on `device`."""
        self.ahead = device.type == "cuda"
        self._collate = collate
        self._device = device
        self._thread: ThreadPoolExecutor | None = None
        self._now: dict[bytes, Future[Batch]] = {}
        self._next: dict[bytes, Future[Batch]] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the thread that makes batches ahead; it has ended when this is left."""
        if not self.ahead:
            yield
            return
        with ThreadPoolExecutor(1, thread_name_prefix="qa_ray-collate") as self._thread:
            try:
                yield
            finally:
                self._thread.shutdown(cancel_futures=True)
                self._thread, self._now, self._next = None, {}, {}

    def prepare(self, groups: Iterable[Int64s]) -> None:
        """Begin with the groups of the step after the one that is made now."""
        self._now, self._next = self._next, {}
        if self._thread is not None:
            self._next = {group.tobytes(): self._thread.submit(self._make, group) for group in groups}

    def __call__(self, group: Int64s) -> Batch:
        """The batch of a group on the device: what was prepared, or a new one if nothing was, or other groups were.

        Raises:
            Exception: what making it has raised.
        """
        made = self._now.pop(group.tobytes(), None)
        return (self._make(group) if made is None else made.result()).to(self._device)

    def _make(self, group: Int64s) -> Batch:
        batch = self._collate(group)
        return batch.pin() if self._device.type == "cuda" else batch
