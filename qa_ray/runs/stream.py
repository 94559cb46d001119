"""From rank 0 to the driver: what it records becomes a progress bar, metrics.jsonl and the tracker's record.

Rank 0 sends without waiting; the driver fetches. So workers need no tracking server, and none can slow them.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Self, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qa_ray.errors import StorageError
from qa_ray.runs.progress import Display
from qa_ray.tracking.hardware import WorkerGroup
from qa_ray.tracking.metrics import Line, Progress, lines_of, metrics_of
from qa_ray.tracking.node_metrics import NodeSample
from qa_ray.tracking.tracker import Tracker
from qa_ray.training.wishes import Phase, Wishes

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SECONDS_BETWEEN_FETCHES = 1.0
_SECONDS_BETWEEN_WRITES = 5.0


@dataclass(frozen=True, slots=True)
class Restart:
    """A worker group begins: what was recorded until `step` counts, anything after it is done again."""

    step: int
    history: list[Line]


Item = Progress | Restart | WorkerGroup | str
Observer = Callable[[Progress | Restart], None]
"""Sees all that rank 0 records, in the follower's thread."""


class MetricStream:
    """An actor between workers, driver and Ray's controller: takes records one way, and what is asked the other."""

    def __init__(self) -> None:
        self._waiting: list[Item] = []
        self._samples: list[NodeSample] = []
        self._stop = False
        self._phase = Phase.STARTING

    def put(self, item: Item) -> None:
        """Add a record or a message."""
        self._waiting.append(item)

    def take(self, limit: int | None = None) -> list[Item]:
        """Remove and return the oldest items, at most `limit`."""
        taken = self._waiting[:limit]
        del self._waiting[: len(taken)]
        return taken

    def put_sample(self, sample: NodeSample) -> None:
        """Add a look at a node."""
        self._samples.append(sample)

    def take_samples(self) -> list[NodeSample]:
        """Remove and return all looks at nodes."""
        taken, self._samples = self._samples, []
        return taken

    def stop(self) -> None:
        """Ask the workers to save and stop."""
        self._stop = True

    def stop_requested(self) -> bool:
        """Whether the workers are asked to stop."""
        return self._stop

    def wishes(self) -> Wishes:
        """What is asked of the workers; asked by them between two steps."""
        self.advance(Phase.STARTING, Phase.TRAINING)
        return Wishes(self._stop, self._phase in (Phase.RESIZE_ASKED, Phase.RESIZE_SAVED))

    def phase(self) -> Phase:
        """Where the workers stand."""
        return self._phase

    def advance(self, before: Phase, after: Phase) -> None:
        """Go from one phase to another, unless somebody else has gone to a third meanwhile."""
        if self._phase is before:
            self._phase = after

    def start_group(self) -> None:
        """The workers before are gone, and others start."""
        self._phase = Phase.STARTING


def start_stream() -> Any:
    """Start a stream on this node, which lives as long as the driver; it takes no CPU from the workers."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # One that dies alone, for want of memory, loses what the driver has not fetched yet, and need not cost a worker.
    lasting = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(num_cpus=0, scheduling_strategy=here, **lasting)(MetricStream).remote()


class StreamWishes:
    """Rank 0's other end of a stream: what is asked of the run, see `Outside`."""

    def __init__(self, stream: Any, preemption: Callable[[], object | None]) -> None:
        self._stream = stream
        self._preemption = preemption

    def wishes(self) -> Wishes:
        """What is asked of the workers now."""
        wishes: Wishes = ray.get(self._stream.wishes.remote())
        return wishes

    def preemption(self) -> object | None:
        """Which nodes are about to be taken away, if any."""
        return self._preemption()

    def saved(self) -> None:
        """Say that the checkpoint for a resize is stored."""
        ray.get(self._stream.advance.remote(Phase.RESIZE_ASKED, Phase.RESIZE_SAVED))

    def go_on(self) -> None:
        """Say that the workers do not wait for a resize any longer."""
        for phase in (Phase.RESIZE_ASKED, Phase.RESIZE_SAVED):
            ray.get(self._stream.advance.remote(phase, Phase.TRAINING))


class StreamSender(logging.Handler):
    """Rank 0's end of a stream: sends progress and log messages without waiting for their arrival.

    Attributes:
        history: all metrics since the run began, which go into its checkpoints.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(logging.INFO)
        self.history: list[Line] = []
        self._stream = stream

    def restart(self, step: int, history: list[Line]) -> None:
        """Go on from what had been recorded at a step."""
        self.history[:] = history
        self._stream.put.remote(Restart(step, history))

    def __call__(self, progress: Progress) -> None:
        """Send a record, and keep its metrics."""
        self._stream.put.remote(progress)
        if progress.metrics:
            self.history.append(progress.line())

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log message."""
        self._stream.put.remote(self.format(record))

    def flush(self) -> None:
        """Wait until everything sent has arrived: an actor takes the calls of one caller in their order."""
        ray.get(self._stream.take.remote(0))


class Fetcher(Generic[T]):
    """Takes what a stream brings, in a thread of the driver while the context lasts.

    Whoever looks on must not end what goes on: an item that cannot be used is told of, and passed over.
    """

    def __init__(self, take: Any, use: Callable[[T], None], after_each: Callable[[], None] = lambda: None) -> None:
        """Prepare to fetch.

        Args:
            take: the stream's method that gives all items since the last call.
            use: takes an item.
            after_each: called after each fetch.
        """
        self._take = take
        self._use = use
        self._after_each = after_each
        self._told: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qa_ray-fetcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(_SECONDS_BETWEEN_FETCHES)
            for item in self._attempt(lambda: ray.get(self._take.remote())) or ():
                self._attempt(partial(self._use, item))
            self._attempt(self._after_each)

    def _attempt(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if reason not in self._told:
                self._told.add(reason)
                logger.warning("something of the run's progress is not shown, and training goes on (%s)", reason)
            return None


class Follower:
    """Follows what rank 0 records while training runs: shows it, and keeps it for those who look on.

    Attributes:
        evaluations: validation metrics by the step at which they were taken.
    """

    def __init__(
        self,
        stream: Any,
        write: Callable[[bytes], None],
        tracker: Tracker,
        observe: Observer | None = None,
        record_group: Callable[[WorkerGroup], None] = lambda group: None,
    ) -> None:
        """Show what the stream brings, and keep it: `write` replaces the content of metrics.jsonl."""
        self.evaluations: dict[int, Mapping[str, float]] = {}
        self._write = write
        self._tracker = tracker
        self._observe = observe
        self._record_group = record_group
        self._lines: list[Line] = []
        self._written_at = time.monotonic()
        self._failure = ""
        self._display = Display()
        self._fetcher = Fetcher[Item](stream.take, self._take, self._write_now_and_then)

    def __enter__(self) -> Self:
        self._display.__enter__()
        self._fetcher.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._fetcher.__exit__(*error)
        self._display.__exit__(*error)
        self._write_lines()

    def _take(self, item: Item) -> None:
        if isinstance(item, str):
            self._display.write(item)
            return
        if isinstance(item, WorkerGroup):
            self._record_group(item)
            return
        # First what others need: a display that fails must not keep it from them.
        if isinstance(item, Restart):
            self._restart(item)
        elif item.metrics:
            self._keep(item.line())
        if self._observe is not None:
            self._observe(item)
        if isinstance(item, Progress):
            self._display.show(item)

    def _restart(self, item: Restart) -> None:
        self._display.close()
        self._lines.clear()
        self.evaluations.clear()
        for line in item.history:
            self._keep(line)

    def _keep(self, line: Line) -> None:
        self._lines.append(line)
        metrics = metrics_of(line)
        if line["phase"] == "evaluate":
            self.evaluations[line["step"]] = metrics
        self._tracker.log_metrics(metrics, line["step"], line["time"])

    def _write_now_and_then(self) -> None:
        if time.monotonic() - self._written_at > _SECONDS_BETWEEN_WRITES:
            self._write_lines()

    def _write_lines(self) -> None:
        self._written_at = time.monotonic()
        try:
            self._write(lines_of(self._lines))
        except StorageError as error:
            # They are in the checkpoints too, and are written again before long: what stays so is told once.
            if str(error) != self._failure:
                logger.warning("metrics.jsonl is not written: %s", error)
            self._failure = str(error)
        else:
            self._failure = ""
