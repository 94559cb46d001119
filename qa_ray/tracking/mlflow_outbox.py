"""What one MLflow run has still to be told: kept on disk, sent in batches, each item once.

A request that fails may have arrived nevertheless. MLflow takes a parameter, a tag, an input, a file or a status twice
without harm, but a metric's point twice is two points: the server is asked which of them it has before they are sent
again.
"""

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException, RestException

from qa_ray.locations import without_password
from qa_ray.tracking.spool import Item, Spool

logger = logging.getLogger(__name__)

_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
_LIMITS = {_RETRIES: "0", _TIMEOUT: "15"}
_UPLOAD_TIMEOUT_S = 300
# What the server says of an item that it will never take.
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"})
_uploading = threading.Lock()

Batch = dict[int, Item]


class RunGoneError(Exception):
    """The server has no such run any more."""


class Outbox:
    """Items of one run, in the order in which they came."""

    def __init__(self, client: Any, run_id: str, spool: Spool) -> None:
        """Take over what waits in `spool`; `client` is an MlflowClient."""
        self.run_id = run_id
        self._client = client
        self._spool = spool
        self._waiting: Batch = dict(spool.items)
        self._doubtful = set(self._waiting)
        self._lock = threading.Lock()
        # In this order: a run that is said to be finished has everything.
        self._lanes: dict[str, tuple[int, Callable[[Batch], None]]] = {
            "param": (100, self._send_params),
            "tag": (100, self._send_tags),
            "metric": (1000, self._send_metrics),
            "input": (10, self._send_inputs),
            "folder": (1, self._send_folders),
            "status": (1, self._send_status),
        }

    def __len__(self) -> int:
        return len(self._waiting)

    def items(self, kind: str) -> list[Item]:
        """What waits of a kind."""
        with self._lock:
            return [item for item in self._waiting.values() if item["kind"] == kind]

    def put(self, items: Sequence[Item]) -> None:
        """Add items; nothing is sent."""
        with self._lock:
            self._waiting.update(zip(self._spool.add(items), items, strict=True))

    def put_folder(self, folder: Path, name: str) -> None:
        """Add a copy of a folder's files as artifacts under `name`."""
        self.put([{"kind": "folder", "name": name, "folder": str(self._spool.keep_copy(folder))}])

    def forget(self, kind: str) -> None:
        """Drop what waits of a kind."""
        self._done([number for number, item in self._waiting.items() if item["kind"] == kind])

    def send(self) -> Exception | None:
        """Send what waits; returns why something could not be sent."""
        problem = None
        for kind, (size, send) in self._lanes.items():
            try:
                for batch in self._batches(kind, size):
                    self._deliver(batch, send)
            except RunGoneError:
                logger.warning("MLflow does not know the run %s any more: what it had not got is lost", self.run_id)
                self._done(list(self._waiting))
                return None
            # Whatever it is, training goes on and the item waits.
            except Exception as error:
                problem = error
                # Files go to another place than the rest, which may be there when the other is not.
                if kind != "folder":
                    return problem
        return problem

    def close(self) -> None:
        """Release what waits for another process."""
        self._spool.close(empty=not self._waiting)

    def _batches(self, kind: str, size: int) -> Iterator[Batch]:
        with self._lock:
            items = [(number, item) for number, item in self._waiting.items() if item["kind"] == kind]
        for start in range(0, len(items), size):
            yield dict(items[start : start + size])

    def _deliver(self, batch: Batch, send: Callable[[Batch], None]) -> None:
        """Send a batch; what the server will never take is looked for and dropped."""
        try:
            send(batch)
        except Exception as error:
            if not is_refusal(error):
                raise
            self._check_run()
            if len(batch) > 1:
                numbers = list(batch)
                for half in (numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]):
                    self._deliver({number: batch[number] for number in half}, send)
                return
            (item,) = batch.values()
            logger.warning("not recorded, since MLflow refuses it: %s %s", item, reason(error))
        self._done(list(batch))

    def _done(self, numbers: Sequence[int]) -> None:
        with self._lock:
            for number in numbers:
                item = self._waiting.pop(number)
                if item["kind"] == "folder":
                    self._spool.drop_copy(Path(item["folder"]))
            self._doubtful.difference_update(numbers)
            self._spool.done(numbers, empty=not self._waiting)

    def _check_run(self) -> None:
        try:
            known = self._client.get_run(self.run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if not is_refusal(error):
                raise
            known = False
        if not known:
            raise RunGoneError(self.run_id)

    def _send_params(self, batch: Batch) -> None:
        params = [Param(item["name"], item["value"]) for item in batch.values()]
        self._client.log_batch(self.run_id, params=params, synchronous=True)

    def _send_tags(self, batch: Batch) -> None:
        tags = [RunTag(item["name"], item["value"]) for item in batch.values()]
        self._client.log_batch(self.run_id, tags=tags, synchronous=True)

    def _send_metrics(self, batch: Batch) -> None:
        names = {batch[number]["name"] for number in self._doubtful & batch.keys()}
        known = {(name, step) for name in names for step in recorded_steps(self._client, self.run_id, name)}
        missing = {number: item for number, item in batch.items() if (item["name"], item["step"]) not in known}
        self._doubtful.update(missing)
        points = [Metric(item["name"], item["value"], item["time"], item["step"]) for item in missing.values()]
        if points:
            self._client.log_batch(self.run_id, metrics=points, synchronous=True)

    def _send_inputs(self, batch: Batch) -> None:
        inputs = [
            DatasetInput(Dataset(**item["dataset"]), [InputTag("mlflow.data.context", item["context"])])
            for item in batch.values()
        ]
        self._client.log_inputs(self.run_id, inputs)

    def _send_folders(self, batch: Batch) -> None:
        for item in batch.values():
            if not Path(item["folder"]).is_dir():
                logger.warning("not recorded, since it is gone: the folder %s", item["folder"])
                continue
            with uploading():
                self._client.log_artifacts(self.run_id, item["folder"], item["name"])

    def _send_status(self, batch: Batch) -> None:
        for number, item in batch.items():
            # Meanwhile the run may have gone on elsewhere, and ended otherwise.
            if number in self._doubtful and self._client.get_run(self.run_id).info.status != "RUNNING":
                continue
            self._client.set_terminated(self.run_id, item["status"], item["time"])


def recorded_steps(client: Any, run_id: str, name: str) -> set[int]:
    """Steps at which the server has a metric."""
    return {point.step for point in client.get_metric_history(run_id, name)}


def is_refusal(error: Exception) -> bool:
    """Whether the server has understood the request and will never take it; else it may do so later."""
    # A proxy before a server that restarts says 404 too, but not in MLflow's words.
    own_words = isinstance(error, RestException) or "API request to" not in str(error)
    return isinstance(error, MlflowException) and own_words and error.error_code in _REFUSALS


def reason(error: Exception) -> str:
    """What went wrong, in a line and without a password that stands in a URI."""
    text = without_password(" ".join(str(error).split()))
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
