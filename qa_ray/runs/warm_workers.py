"""Workers that stay when a run has ended, and take the next one: their processes have imported all that it needs."""

import gc
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import ray
from accelerate.state import AcceleratorState
from ray import train

from qa_ray.runs.outcome import Outcome
from qa_ray.runs.trainer import Trainer

_WORKERS_LOOK_EVERY_S = 0.05
"""Between two runs alone."""
_DRIVER_LOOKS_EVERY_S = 0.25

Work = Callable[[], Outcome]
"""What each worker does for a run."""


class WorkQueue:
    """An actor between a driver and its warm workers: takes work one way, and its outcome the other."""

    def __init__(self) -> None:
        self._number = 0
        self._work: Work | None = None
        self._outcome: Outcome | None = None
        self._closed = False
        self._groups = 0

    def put(self, work: Work) -> None:
        """Give the workers something to do, once they have done all else."""
        self._number += 1
        self._work, self._outcome = work, None

    def close(self) -> None:
        """Let the workers end."""
        self._closed = True

    def join(self) -> None:
        """Another group of workers has come."""
        self._groups += 1

    def groups(self) -> int:
        """How many groups there have been."""
        return self._groups

    def take(self, done: int) -> tuple[int, Work | None, bool]:
        """For a worker that has `done` so many: number and work of the next one, if any, and whether it is to end."""
        news = self._work is not None and self._outcome is None and self._number > done
        return self._number, self._work if news else None, self._closed

    def finish(self, outcome: Outcome) -> None:
        """Rank 0 has done its work, which the others have done or are about to end."""
        self._outcome = outcome

    def outcome(self) -> Outcome | None:
        """What became of the work; None while it goes on."""
        return self._outcome


def serve(queue: Any) -> None:
    """On each worker: do whatever work comes; work that the group before has not ended comes again."""
    rank, done = train.get_context().get_world_rank(), 0
    if rank == 0:
        ray.get(queue.join.remote())
    while True:
        number, work, closed = ray.get(queue.take.remote(done))
        if closed:
            return
        if work is None:
            time.sleep(_WORKERS_LOOK_EVERY_S)
            continue
        outcome = work()
        done = number
        # The next run may compute in another precision.
        AcceleratorState._reset_state(reset_partial_state=True)
        del work
        gc.collect()
        if rank == 0:
            ray.get(queue.finish.remote(outcome))


class WarmWorkers:
    """A group of workers that does one run after another; a group that has met an error is replaced by a new one."""

    def __init__(self) -> None:
        """There are none before the first run."""
        self._queue: Any = None
        self._fit: Future[Any] | None = None

    def run(self, work: Work, make_trainer: Callable[[Callable[[], object]], Trainer]) -> Outcome:
        """Let the workers do `work`; `make_trainer` makes what starts them, given what each of them is to do.

        Raises:
            TrainingFailedError: as Ray Train's own `fit` does.
        """
        if self._fit is None or self._fit.done():
            self._start(make_trainer)
        assert self._fit is not None
        groups = ray.get(self._queue.groups.remote())
        ray.get(self._queue.put.remote(work))
        while True:
            outcome: Outcome | None = ray.get(self._queue.outcome.remote())
            if outcome is not None:
                break
            if self._fit.done():
                self._fit.result()  # it has failed
            time.sleep(_DRIVER_LOOKS_EVERY_S)
        # Ray counts the losses of a group for good, and each run is allowed as many.
        if ray.get(self._queue.groups.remote()) > max(groups, 1):
            self.close()
        return outcome

    def close(self) -> None:
        """End the workers, and wait until they are gone."""
        if self._fit is not None and not self._fit.done():
            ray.get(self._queue.close.remote())
            self._fit.exception()

    def _start(self, make_trainer: Callable[[Callable[[], object]], Trainer]) -> None:
        self._queue = ray.remote(num_cpus=0)(WorkQueue).remote()
        trainer = make_trainer(partial(serve, self._queue))
        self._fit = ThreadPoolExecutor(1, "qa_ray-workers").submit(trainer.fit)
