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
from qa_ray.runs.work_queue import WorkQueue

_WORKERS_LOOK_EVERY_S = 0.05
"""Between two runs alone."""
_DRIVER_LOOKS_EVERY_S = 0.25

Work = Callable[[], Outcome]
"""What each worker does for a run."""


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
        outcome = ray.get(work)()
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
        ray.get(self._queue.put.remote((ray.put(work),)))
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
