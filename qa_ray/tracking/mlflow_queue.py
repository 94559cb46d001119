"""What one MLflow run has still to be told: a queue, and a thread that empties it while training goes on.

A request that fails may have arrived nevertheless. MLflow takes a parameter, a tag, an input, a file or a status twice
without harm, but a metric's point twice is two points: the server is asked which of them it has before they are sent
again.
"""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import DatasetInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException, RestException

from qa_ray.locations import without_secrets
from qa_ray.tracking.tracker import OpenFolder

logger = logging.getLogger(__name__)

_GATHER_S, _LONGEST_PAUSE_S = 0.2, 30.0
"""Items that come so shortly after one another share a request; pauses between attempts grow from there."""
_LAST_PAUSES_S = (0.0, 0.5, 1.0, 2.0)
"""Pauses before the attempts at the end of a run."""
_PATIENCE_S = 60.0
"""`flush` and `close` wait so long for a request that hangs in the thread."""

_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
_LIMITS = {_RETRIES: "0", _TIMEOUT: "15"}
_UPLOAD_TIMEOUT_S = 300
# What the server says of an item that it will never take.
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"})
_uploading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Folder:
    """Files that become artifacts."""

    open: OpenFolder
    name: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How and when (in ms since 1970) the run ended."""

    status: str
    time: int


class MlflowQueue:
    """Items of one run: MLflow's Param, RunTag, Metric and DatasetInput, Folder and Ending; nobody waits for them."""

    def __init__(self, client: Any, run_id: str) -> None:
        """Start the thread; `client` is an MlflowClient."""
        self._client = client
        self._run_id = run_id
        # In this order: a run that is said to be finished has everything. Lists only grow at their end and shrink at
        # their beginning, the latter by whoever holds `_sending`.
        self._lanes: dict[type, tuple[list[Any], int, Callable[[Sequence[Any]], object]]] = {
            Param: ([], 100, lambda items: client.log_batch(run_id, params=items, synchronous=True)),
            RunTag: ([], 100, lambda items: client.log_batch(run_id, tags=items, synchronous=True)),
            Metric: ([], 1000, self._send_metrics),
            DatasetInput: ([], 10, lambda items: client.log_inputs(run_id, items)),
            Folder: ([], 1, self._send_folder),
            Ending: ([], 1, lambda items: client.set_terminated(run_id, items[0].status, items[0].time)),
        }
        self._tried: set[tuple[str, int]] = set()
        self._problem: Exception | None = None
        self._sending = threading.Lock()
        self._fresh, self._closed = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name="qa_ray-mlflow", daemon=True).start()

    def __len__(self) -> int:
        return sum(len(waiting) for waiting, _, _ in self._lanes.values())

    def put(self, *items: Any) -> None:
        """Send items soon."""
        for item in items:
            self._lanes[type(item)][0].append(item)
        self._fresh.set()

    def flush(self, patience_s: float = _PATIENCE_S) -> bool:
        """Send everything now, and return whether nothing is left."""
        if self._sending.acquire(timeout=max(0.0, patience_s)):
            try:
                self._tell(self._send())
            finally:
                self._sending.release()
        return not len(self)

    def close(self) -> int:
        """Send what can be sent, end the thread, and return how many items are left."""
        self._closed.set()
        self._fresh.set()
        deadline = time.monotonic() + _PATIENCE_S
        for pause in _LAST_PAUSES_S:
            time.sleep(pause)
            if self.flush(deadline - time.monotonic()) or time.monotonic() > deadline:
                break
        return len(self)

    def _run(self) -> None:
        pause = _GATHER_S
        while self._fresh.wait() and not self._closed.wait(pause):
            self._fresh.clear()
            if self.flush():
                pause = _GATHER_S
            else:
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                self._fresh.set()

    def _tell(self, problem: Exception | None) -> None:
        if problem and not self._problem:
            logger.warning("MLflow takes no records for now, training goes on: they wait (%s)", reason(problem))
        elif self._problem and not problem:
            logger.warning("MLflow takes records again: what had waited has been sent")
        self._problem = problem

    def _send(self) -> Exception | None:
        """Send what waits; returns why something could not be sent."""
        problem = None
        for kind, (waiting, size, _) in self._lanes.items():
            try:
                # Not more than waits now: whoever adds all the time must not keep us here.
                for _ in range(0, len(waiting), size):
                    self._deliver(kind, waiting[:size])
            # Whatever it is, training goes on and the item waits.
            except Exception as error:
                problem = error
                # Files go to another place than the rest, which may be there when the other is not.
                if kind is not Folder:
                    break
        return problem

    def _deliver(self, kind: type, batch: Sequence[Any]) -> None:
        """Send the first items of a kind; what the server will never take is looked for and dropped."""
        waiting, _, send = self._lanes[kind]
        try:
            if batch:
                send(batch)
        except Exception as error:
            if not is_refusal(error):
                raise
            if not is_active(self._client, self._run_id):
                logger.warning("MLflow does not know the run %s any more: what it had not got is lost", self._run_id)
                for lost, _, _ in self._lanes.values():
                    lost.clear()
                return
            if len(batch) > 1:
                middle = len(batch) // 2
                self._deliver(kind, batch[:middle])
                self._deliver(kind, batch[middle:])
                return
            logger.warning("not recorded, since MLflow refuses it: %s %s", batch[0], reason(error))
        del waiting[: len(batch)]

    def _send_metrics(self, points: Sequence[Metric]) -> None:
        asked = {(point.key, point.step): point for point in points}
        doubtful = {name for name, _ in self._tried & asked.keys()}
        known = {(name, step) for name in doubtful for step in recorded_steps(self._client, self._run_id, name)}
        self._tried.update(asked)
        missing = [point for place, point in asked.items() if place not in known]
        if missing:
            self._client.log_batch(self._run_id, metrics=missing, synchronous=True)
        self._tried.difference_update(asked)

    def _send_folder(self, folders: Sequence[Folder]) -> None:
        with folders[0].open() as files, uploading():
            self._client.log_artifacts(self._run_id, str(files), folders[0].name)


def is_active(client: Any, run_id: str) -> bool:
    """Whether the server has a run, and it is not deleted."""
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if not is_refusal(error):
            raise
        return False


def recorded_steps(client: Any, run_id: str, name: str) -> set[int]:
    """Steps at which the server has a metric."""
    return {point.step for point in client.get_metric_history(run_id, name)}


def is_refusal(error: Exception) -> bool:
    """Whether the server has understood the request and will never take it; else it may do so later."""
    # A proxy before a server that restarts says 404 too, but not in MLflow's words.
    own_words = isinstance(error, RestException) or "API request to" not in str(error)
    return isinstance(error, MlflowException) and own_words and error.error_code in _REFUSALS


def reason(error: Exception) -> str:
    """What went wrong, in a line and without what looks like a secret."""
    text = without_secrets(" ".join(str(error).split()))
    # Of a server that is not there: Python's objects tell it three times over.
    gone = re.search(r"API request to (\w+://[^/\s]+).*Caused by .*?\): (.+?)[\"']?\)+$", text)
    text = f"{gone[1]}: {gone[2]}" if gone else text
    return text[:300] or type(error).__name__


def bound_requests() -> None:
    """Make a request to a server that is gone fail in seconds, unless the environment says how long it may take.

    By default MLflow tries for minutes, and so often that a metric may arrive twice. Only the process as a whole can
    be told otherwise.
    """
    for name, value in _LIMITS.items():
        os.environ.setdefault(name, value)
    # It would print the run's address amid what a job prints.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


@contextlib.contextmanager
def uploading(*, retries: int = 0) -> Iterator[None]:
    """Give requests the time that large files take, and this many retries, while the context lasts."""
    with _uploading:
        patient = {_RETRIES: str(retries), _TIMEOUT: str(_UPLOAD_TIMEOUT_S)}
        # What the user has set stays.
        ours = [name for name, value in _LIMITS.items() if os.environ.get(name) == value]
        os.environ.update({name: patient[name] for name in ours})
        try:
            yield
        finally:
            os.environ.update({name: _LIMITS[name] for name in ours})
