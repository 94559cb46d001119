"""What the tests do to a run while it goes on: wait for its checkpoints, kill one of its workers."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ray_runs import training_workers

from qa_ray.storage.checkpoint_store import MANIFEST

Ended = Callable[[], object]


def newest(run: Path) -> int:
    """Step of the newest checkpoint; 0 if there is none."""
    names = [path.parent.name for path in run.glob(f"checkpoints/*/{MANIFEST}")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def wait_for_checkpoint(run: Path, step: int, ended: Ended) -> None:
    """Wait until a run has a checkpoint of this step or a later one."""
    while newest(run) < step:
        assert not ended(), f"the run ended before step {step} was saved"
        time.sleep(0.01)


@contextlib.contextmanager
def meanwhile(action: Callable[[Ended], None]) -> Iterator[None]:
    """Do something in a thread beside the block; it is given what tells whether the block has ended."""
    over = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            action(over.is_set)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


@dataclass
class Killer:
    """Kills one of a run's two workers once a step is saved."""

    run: Path
    step: int
    victim: int
    killed_at: float = 0.0

    def __call__(self, ended: Ended) -> None:
        # Found beforehand, so that the kill is not late; those of the run before may not be gone yet.
        before = {process.pid for process in training_workers()}
        workers = []
        while len(workers) < 2:
            assert not ended(), "the run ended without workers"
            workers = [process for process in training_workers() if process.pid not in before]
        wait_for_checkpoint(self.run, self.step, ended)
        workers[self.victim].kill()
        self.killed_at = time.time()
