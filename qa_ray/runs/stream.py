"""From rank 0 to the driver: what it records becomes a progress bar, metrics.jsonl and the tracker's record.

Rank 0 sends without waiting; the driver fetches. So workers need no tracking server, and none can slow them.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qa_ray.errors import StorageError
from qa_ray.runs.elastic import preemption_known
from qa_ray.runs.progress import Display
from qa_ray.storage.strict_json import to_json
from qa_ray.tracking.metrics import Line, Progress, metrics_of
from qa_ray.tracking.node_metrics import NodeSample
from qa_ray.tracking.tracker import Tracker
from qa_ray.training.wishes import Phase, Wishes

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_FETCHES = 1.0
_SECONDS_BETWEEN_WRITES = 5.0


@dataclass(frozen=True, slots=True)
class Restart:
    """A worker group begins: what was recorded until `step` counts, anything after it is done again."""

    step: int
    history: list[Line]


Item = Progress | Restart | NodeSample | str
Observer = Callable[[Progress | Restart], None]
"""Sees all that rank 0 records, in the follower's thread."""


class MetricStream:
    """An actor between workers, driver and Ray's controller: takes records one way, and what is asked the other."""

    def __init__(self) -> None:
        self._waiting: list[Item] = []
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

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def wishes(self) -> Wishes:
        """What is asked of the workers now."""
        wishes: Wishes = ray.get(self._stream.wishes.remote())
        return wishes

    def preemption(self) -> object | None:
        """Which nodes are about to be taken away, if any."""
        return preemption_known()

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


class Follower:
    """Follows a stream in a thread of the driver while training runs.

    Attributes:
        evaluations: validation metrics by the step at which they were taken.
    """

    def __init__(
        self,
        stream: Any,
        write: Callable[[bytes], None],
        tracker: Tracker,
        record_node: Callable[[NodeSample], None] = lambda sample: None,
        observe: Observer | None = None,
    ) -> None:
        """Show what the stream brings, and keep it: `write` replaces the content of metrics.jsonl."""
        self.evaluations: dict[int, Mapping[str, float]] = {}
        self._stream = stream
        self._write = write
        self._tracker = tracker
        self._record_node = record_node
        self._observe = observe
        self._lines: list[Line] = []
        self._written_at = time.monotonic()
        self._display = Display()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="qa_ray-follower", daemon=True)

    def __enter__(self) -> Self:
        self._display.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._display.__exit__(*error)
        self._write_lines()

    def _follow(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_FETCHES):
            self._fetch()
            if time.monotonic() - self._written_at > _SECONDS_BETWEEN_WRITES:
                self._write_lines()
        self._fetch()

    def _fetch(self) -> None:
        for item in ray.get(self._stream.take.remote()):
            if isinstance(item, str):
                self._display.write(item)
                continue
            if isinstance(item, NodeSample):
                self._record_node(item)
                continue
            if isinstance(item, Restart):
                self._restart(item)
            else:
                self._display.show(item)
                if item.metrics:
                    self._keep(item.line())
            if self._observe is not None:
                self._observe(item)

    def _restart(self, item: Restart) -> None:
        self._display.close()
        self._lines.clear()
        self.evaluations.clear()
        for line in item.history:
            self._keep(line)

    def _keep(self, line: Line) -> None:
        self._lines.append(line)
        metrics = metrics_of(line)
        self._tracker.log_metrics(metrics, line["step"], line["time"])
        if line["phase"] == "evaluate":
            self.evaluations[line["step"]] = metrics

    def _write_lines(self) -> None:
        self._written_at = time.monotonic()
        try:
            self._write("".join(to_json(line) + "\n" for line in self._lines).encode())
        except StorageError as error:
            # They are in the checkpoints too, and are written again before long.
            logger.warning("metrics.jsonl is not written: %s", error)
