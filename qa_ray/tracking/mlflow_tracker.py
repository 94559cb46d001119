"""The record of a run in MLflow: a tracking server, or a local SQLite file."""

import contextlib
import fcntl
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from qa_ray.config.operation import TrackingConfig
from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import TRACKING, RunFolder
from qa_ray.tracking.environment import describe_code
from qa_ray.tracking.mlflow_queue import Ending, Folder, MlflowQueue, bound_requests, is_active, reason, recorded_steps
from qa_ray.tracking.mlflow_registry import log_model, mark_trials, register
from qa_ray.tracking.tracker import (
    LONGEST_TAG,
    SYSTEM_PREFIX,
    Candidate,
    DataUse,
    OpenFolder,
    RunStatus,
    Tracker,
    TrialEntry,
    cut,
    shown,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What MLflow takes at most, in characters.
_LONGEST_NAME, _LONGEST_PARAM = 250, 6000
_LOCKED_PAUSES_S = (0.5, 1.0, 2.0)
_POSTGRESQL_LOCK = int.from_bytes(b"qa_ray")


class MlflowTracker(Tracker):
    """Keeps the run in MLflow.

    What the server does not take waits in memory. Later processes find what it lacks in the run's folder: metrics.jsonl
    has the metrics, tracking.json the parameters, tags and inputs, and whether MLflow lacks something (`owed`). Nodes'
    metrics are in neither: those that still wait when the process ends are lost.
    """

    def __init__(
        self,
        config: TrackingConfig,
        folder: RunFolder,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        inputs: Sequence[DataUse],
    ) -> None:
        """Start an MLflow run, or go on with that of an earlier process; see `start_tracker`."""
        bound_requests()
        self._uri = config.store
        self._folder = folder
        earlier = json.loads(folder.read(TRACKING) or b"{}")
        # MLflow's stores let through whatever their databases raise.
        try:
            with _alone_with(self._uri):
                self._client = MlflowClient(tracking_uri=self._uri)
                self._experiment = _while_locked(lambda: self._experiment_id(config.experiment))
            run = self._reopen(earlier.get("run_id")) or _while_locked(self._create)
            self.run_id: str = run.info.run_id
            self._recorded = self._last_steps(run)
        except Exception as error:
            raise StorageError(
                f"tracking.uri: the MLflow record cannot be started: {reason(error)} "
                "(start the server, name another one, or pass --tracking.no-enabled)"
            ) from error
        self._queue = MlflowQueue(self._client, self.run_id)
        self._put_texts(run, earlier, params, tags)
        self._inputs = [_input(use) for use in inputs] or earlier.get("inputs", [])
        self._queue.put(*(_dataset_input(**fields) for fields in self._inputs))
        self._save(owed=True)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record what the run was made with; a tag that a resumed run changes is noted as resumed.NAME."""
        texts = _cut(tags, LONGEST_TAG)
        changed = {name for name, text in texts.items() if self._first_tags.get(name, text) != text}
        self._put_tags({f"resumed.{name}" if name in changed else name: text for name, text in texts.items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int, when: float | None = None) -> None:
        """Record metrics at an optimizer step, except those that are done again and were recorded before."""
        new = {name: value for name, value in metrics.items() if step > self._recorded.get(name, -1)}
        self._recorded |= dict.fromkeys(new, step)
        time = _milliseconds(when)
        self._queue.put(*(Metric(name, float(value), time, step) for name, value in new.items()))

    def log_folder(self, open_folder: OpenFolder, name: str) -> None:
        """Keep the files of a folder as artifacts under `name`; it is opened when they are sent."""
        self._queue.put(Folder(open_folder, name))

    def log_model(self, folder: Path, step: int = 0) -> str:
        """Log a fine-tuned model so that MLflow can load and serve it, and return its URI; see `mlflow_registry`."""
        self.flush()
        return log_model(self._client, self.run_id, folder, step)

    def register(self, name: str, candidate: Candidate) -> str:
        """Make a logged model a version of the registered model `name`; see `mlflow_registry`."""
        return register(self._client, name, candidate)

    def mark_trials(self, entries: Sequence[TrialEntry]) -> None:
        """Record what became of a sweep's trials that have ended; see `mlflow_sweep`."""
        mark_trials(self._client, self.run_id, entries)

    def flush(self) -> bool:
        """Send what waits, and return whether all of it was taken."""
        return self._queue.flush()

    def finish(self, status: RunStatus) -> None:
        """End the run, and note whether MLflow lacks something."""
        self._queue.put(Ending(status.value, _milliseconds()))
        left = self._queue.close()
        if left:
            logger.warning(
                "%d records of the run %s could not be sent to MLflow: the same command sends them later from the "
                "run's folder, which has all but the nodes' metrics",
                left,
                self._folder.name,
            )
        try:
            self._save(owed=left > 0)
        except StorageError as error:
            # It says so from the beginning: the same command will look for what MLflow lacks.
            logger.warning("%s", error)

    def where(self) -> str:
        """Say in a line how to look at the record."""
        if self._uri.startswith("sqlite:"):
            return f"run {self.run_id}; look at it with: mlflow ui --backend-store-uri {self._uri}"
        return f"run {self.run_id} of experiment {self._experiment} on the tracking server"

    def _put_texts(
        self, run: Run, earlier: Mapping[str, Any], params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> None:
        """Put parameters and tags that MLflow lacks, and beside them, as tags, those that a resumed run has changed."""
        new = _cut({name: shown(name, value) for name, value in params.items()}, _LONGEST_PARAM)
        # MLflow refuses a parameter's second value, and would forget a tag's first one.
        self._params = new | earlier.get("params", {}) | run.data.params
        self._queue.put(*(Param(*item) for item in self._params.items() - run.data.params.items()))
        self._tags: dict[str, str] = earlier.get("tags", {})
        self._first_tags = self._tags | run.data.tags
        self._put_tags(dict(self._tags.items() - run.data.tags.items()))
        self._put_tags({f"resumed.{name}": text for name, text in new.items() if self._params[name] != text})
        self.set_tags(_environment_tags() | dict(tags))

    def _put_tags(self, tags: Mapping[str, str]) -> None:
        texts = _cut(tags, LONGEST_TAG)
        self._tags = self._tags | texts
        self._queue.put(*(RunTag(*item) for item in texts.items()))

    def _save(self, *, owed: bool) -> None:
        record = {"run_id": self.run_id, "owed": owed, "params": self._params, "tags": self._tags}
        self._folder.write(TRACKING, json.dumps(record | {"inputs": self._inputs}, indent=1).encode())

    def _reopen(self, run_id: str | None) -> Run | None:
        """Go on with a run, if the store still has it."""
        if run_id is None:
            return None
        if not is_active(self._client, run_id):
            logger.warning("MLflow does not know the run %s any more: a new one is started", run_id)
            return None
        self._client.update_run(run_id, status="RUNNING")
        return self._client.get_run(run_id)

    def _last_steps(self, run: Run) -> dict[str, int]:
        # A node's steps are never done again, and its curves are long.
        names = [name for name in run.data.metrics if not name.startswith(SYSTEM_PREFIX)]
        return {name: max(recorded_steps(self._client, run.info.run_id, name)) for name in names}

    def _create(self) -> Run:
        return self._client.create_run(self._experiment, run_name=self._folder.name)

    def _experiment_id(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        # Beside a local database MLflow would put artifacts into the working directory of whoever asks.
        local = self._uri.startswith("sqlite:///")
        place = Path(self._uri.removeprefix("sqlite:///")).parent / "mlartifacts" if local else None
        return str(self._client.create_experiment(name, artifact_location=place.as_uri() if place else None))


def _while_locked(call: Callable[[], T]) -> T:
    """Call again where a database was locked, or where another process has just made the experiment."""
    for pause in _LOCKED_PAUSES_S:
        try:
            return call()
        except MlflowException as error:
            locked = "database is locked" in str(error)
            if not locked and error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            time.sleep(pause if locked else 0)
    return call()


@contextlib.contextmanager
def _alone_with(uri: str) -> Iterator[None]:
    """Let no other run open a new database meanwhile: processes that make MLflow's tables at once break each other.

    SQLite is kept from other processes of this machine, PostgreSQL from all. Raises at once what a database raises
    that cannot be opened: MLflow would try for minutes.
    """
    kind = uri.partition(":")[0].partition("+")[0]
    with contextlib.ExitStack() as stack:
        if uri.startswith("sqlite:///"):
            folder = Path(uri.removeprefix("sqlite:///")).parent
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if kind in ("sqlite", "postgresql", "mysql", "mssql"):
            engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
            connection = stack.enter_context(engine.connect())
        if kind == "postgresql":
            # Held until the connection is closed.
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({_POSTGRESQL_LOCK})"))
        yield


def _environment_tags() -> dict[str, str]:
    found = describe_code()
    tags = {f"environment.{name}": value for name, value in found.items()}
    return tags | ({"mlflow.source.git.commit": found["git_commit"]} if "git_commit" in found else {})


def _input(use: DataUse) -> dict[str, Any]:
    """Purpose and fields of MLflow's data set; what MLflow's own classes would read back from it."""
    columns = [{"name": name, "type": kind, "required": True} for name, kind in use.columns.items()]
    fields = {
        "name": cut(use.name, 500),
        "digest": use.digest[:36],
        "source_type": use.source_type,
        "source": json.dumps({"path" if use.on_hub else "uri": use.source}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps({name: value for name, value in use.profile.items() if math.isfinite(value)}),
    }
    return {"context": use.context, "dataset": fields}


def _dataset_input(context: str, dataset: Mapping[str, str]) -> DatasetInput:
    return DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", context)])


def _cut(texts: Mapping[str, str], limit: int) -> dict[str, str]:
    return {cut(name, _LONGEST_NAME, name=True): cut(text, limit) for name, text in texts.items()}


def _milliseconds(when: float | None = None) -> int:
    return round(1000 * (time.time() if when is None else when))
