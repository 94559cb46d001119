"""From rank 0 to the driver: what it records becomes a progress bar, metrics.jsonl and the tracker's record.

Rank 0 sends without waiting; the driver fetches. So workers need no tracking server, and none can slow them.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from tqdm import tqdm

from qa_ray.tracking import EVAL_PREFIX, TRAIN_LOSS, Progress, Tracker

_SECONDS_BETWEEN_FETCHES = 0.3
# A log file shows every state of a bar as a line of its own: there, few are enough.
_SECONDS_BETWEEN_LOG_LINES = 15.0
_LINE = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class MetricStream:
    """An actor that holds what rank 0 has recorded, and what it has to say, until the driver takes it."""

    def __init__(self) -> None:
        self._waiting: list[Progress | str] = []

    def put(self, item: Progress | str) -> None:
        """Add a record or a message."""
        self._waiting.append(item)

    def take(self, limit: int | None = None) -> list[Progress | str]:
        """Remove and return the oldest items, at most `limit`."""
        taken = self._waiting[:limit]
        del self._waiting[: len(taken)]
        return taken


def start_stream() -> Any:
    """Start a stream; it takes no CPU from the workers."""
    return ray.remote(num_cpus=0)(MetricStream).remote()


class Sender(logging.Handler):
    """Rank 0's end of a stream: sends progress and log messages without waiting for their arrival."""

    def __init__(self, stream: Any) -> None:
        super().__init__(logging.INFO)
        self._stream = stream

    def __call__(self, progress: Progress) -> None:
        """Send a record."""
        self._stream.put.remote(progress)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log message."""
        self._stream.put.remote(self.format(record))

    def flush(self) -> None:
        """Wait until everything sent has arrived: an actor takes the calls of one caller in their order."""
        ray.get(self._stream.take.remote(0))


class _Lines:
    """Standard error for a bar that is no terminal's: each of its states becomes a line."""

    def write(self, text: str) -> None:
        shown = text.strip("\r\n ")
        if shown:
            sys.stderr.write(shown + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class Follower:
    """Follows a stream in a thread of the driver while training runs.

    Attributes:
        evaluations: validation metrics by the step at which they were taken.
    """

    def __init__(self, stream: Any, metrics_file: Path, tracker: Tracker) -> None:
        self.evaluations: dict[int, Mapping[str, float]] = {}
        self._stream = stream
        self._file = metrics_file.open("a", encoding="utf-8")
        self._tracker = tracker
        self._bars: dict[str, tqdm] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="qa_ray-follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for bar in self._bars.values():
            bar.close()
        self._file.close()

    def _follow(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_FETCHES):
            self._fetch()
        self._fetch()

    def _fetch(self) -> None:
        for item in ray.get(self._stream.take.remote()):
            if isinstance(item, str):
                tqdm.write(item, file=sys.stderr)
                continue
            self._show(item)
            if item.metrics:
                self._keep(item)

    def _keep(self, progress: Progress) -> None:
        metrics = dict(progress.metrics)
        line = {"time": round(time.time(), 3), "phase": progress.phase, "step": progress.step, **metrics}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._tracker.log_metrics(metrics, progress.step)
        if progress.phase == "evaluate":
            self.evaluations[progress.step] = metrics
            tqdm.write(_evaluation_line(progress), file=sys.stderr)

    def _show(self, progress: Progress) -> None:
        if progress.phase == "evaluate" and progress.metrics:
            bar = self._bars.pop("evaluate", None)
            if bar is not None:
                bar.close()
            return
        bar = self._bars.get(progress.phase) or self._new_bar(progress)
        bar.update(progress.done - bar.n)
        if TRAIN_LOSS in progress.metrics:
            bar.set_postfix(loss=f"{progress.metrics[TRAIN_LOSS]:.3f}", refresh=False)

    def _new_bar(self, progress: Progress) -> tqdm:
        # In a log every refresh is a line: the evaluation's short bar would only fill it.
        interactive = sys.stderr.isatty()
        bar = tqdm(
            file=sys.stderr if interactive else _Lines(),
            bar_format=None if interactive else _LINE,
            total=progress.total,
            desc=progress.phase,
            unit=" steps" if progress.phase == "train" else " windows",
            mininterval=0.1 if interactive else _SECONDS_BETWEEN_LOG_LINES,
            maxinterval=1.0 if interactive else _SECONDS_BETWEEN_LOG_LINES,
            dynamic_ncols=True,
            leave=progress.phase == "train",
            disable=not interactive and progress.phase == "evaluate",
        )
        self._bars[progress.phase] = bar
        return bar


def _evaluation_line(progress: Progress) -> str:
    names = ("exact_match", "f1", "loss")
    scores = ", ".join(f"{name} {progress.metrics[EVAL_PREFIX + name]:.2f}" for name in names)
    return f"step {progress.step}: {scores}"
