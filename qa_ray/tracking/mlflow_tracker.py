"""The record of a run in MLflow: a tracking server, or a local SQLite file."""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from qa_ray.config.operation import TrackingConfig
from qa_ray.errors import StorageError
from qa_ray.tracking.environment import describe_environment
from qa_ray.tracking.mlflow_outbox import Outbox, bound_requests, is_refusal, reason, recorded_steps
from qa_ray.tracking.mlflow_registry import log_model, register
from qa_ray.tracking.mlflow_sender import Sender
from qa_ray.tracking.records import LONGEST_TAG, SYSTEM_PREFIX, Candidate, DataUse, RunStatus, cut, shown
from qa_ray.tracking.spool import Spool

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What MLflow takes at most, in characters.
_LONGEST_NAME, _LONGEST_PARAM = 250, 6000
_LOCKED_PAUSES_S = (0.5, 1.0, 2.0)
_LEFT_OVER_PATIENCE_S = 10.0
_POSTGRESQL_LOCK = int.from_bytes(b"qa_ray")


class MlflowTracker:
    """Keeps the run in MLflow. What the server does not take now waits on the disk.

    Nothing waits for the server but the start, `flush`, `finish` and the two methods about models.
    """

    def __init__(
        self,
        config: TrackingConfig,
        run_name: str,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Start an MLflow run, or go on with the one of `run_id`.

        Raises:
            StorageError: the server or the file cannot be reached.
        """
        bound_requests()
        self._uri = config.store
        self._recorded: dict[str, int] = {}
        self._known: dict[str, dict[str, str]] = {"param": {}, "tag": {}}
        self._folder = _spool_folder(config)
        store = hashlib.sha256(self._uri.encode()).hexdigest()[:12]
        # MLflow's stores let through whatever their databases raise.
        try:
            with _alone_with(self._uri):
                self._client = MlflowClient(tracking_uri=self._uri)
                self._experiment = _while_locked(lambda: self._experiment_id(config.experiment))
            earlier = self._reopen(run_id, store) if run_id else None
            self._run: str = run_id if run_id and earlier is not None else _while_locked(lambda: self._create(run_name))
        except Exception as error:
            raise StorageError(
                f"tracking.uri: the MLflow record cannot be started: {reason(error)} "
                "(start the server, name another one, or pass --tracking.no-enabled)"
            ) from error
        self._own = Outbox(self._client, self._run, Spool.create(self._folder, f"{store}-{self._run}"))
        self._sender = Sender(self._own, earlier or (), lambda: self._left_over(store))
        self.set_tags(_environment_tags() | dict(tags or {}))

    @property
    def run_id(self) -> str:
        """The MLflow run."""
        return self._run

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record the flattened configuration, without what may be a secret."""
        self._put_texts("param", {name: shown(name, value) for name, value in params.items()}, _LONGEST_PARAM)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record what the run was made with; a tag that a resumed run changes is noted as resumed.NAME."""
        self._put_texts("tag", tags, LONGEST_TAG)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at an optimizer step."""
        now = _milliseconds()
        # Steps that a resumed run does again have been recorded.
        new = {name: value for name, value in metrics.items() if step > self._recorded.get(name, -1)}
        self._recorded |= dict.fromkeys(new, step)
        self._sender.put(
            [
                {"kind": "metric", "name": name, "value": float(value), "step": step, "time": now}
                for name, value in new.items()
            ]
        )

    def log_inputs(self, inputs: Sequence[DataUse]) -> None:
        """Record the data sets that the run reads."""
        self._sender.put([{"kind": "input", "context": use.context, "dataset": _dataset(use)} for use in inputs])

    def log_folder(self, folder: Path, name: str) -> None:
        """Keep the files of a folder as artifacts under `name`."""
        self._own.put_folder(folder, name)
        self._sender.wake()

    def log_model(self, folder: Path, step: int = 0) -> str:
        """Log a fine-tuned model so that MLflow can load and serve it, and return its URI; see `mlflow_registry`.

        Raises:
            StorageError: the server cannot be reached.
        """
        self.flush()
        return log_model(self._client, self._run, folder, step)

    def register(self, name: str, candidate: Candidate) -> str:
        """Make a logged model a version of the registered model `name`; see `mlflow_registry`.

        Raises:
            StorageError: the server cannot be reached.
        """
        return register(self._client, name, candidate)

    def flush(self) -> bool:
        """Send what waits, and return whether all of it was taken."""
        return self._sender.flush()

    def finish(self, status: RunStatus) -> None:
        """End the run, and say what could not be sent."""
        self._sender.put([{"kind": "status", "status": status.value, "time": _milliseconds()}])
        left = self._sender.close()
        if left:
            logger.warning(
                "%d records of the run could not be sent to MLflow and wait in %s: the next run with this server sends "
                "them, or this one when it goes on",
                left,
                self._folder,
            )

    def where(self) -> str:
        """Say in a line how to look at the record."""
        if self._uri.startswith("sqlite:"):
            return f"run {self._run}; look at it with: mlflow ui --backend-store-uri {self._uri}"
        return f"run {self._run} of experiment {self._experiment} on the tracking server"

    def _put_texts(self, kind: str, texts: Mapping[str, str], limit: int) -> None:
        """Put parameters or tags that are new, and beside them, as tags, those that a resumed run has changed."""
        known = self._known[kind]
        items = []
        for name, text in texts.items():
            name, text = cut(name, _LONGEST_NAME, name=True), cut(text, limit)
            if name not in known:
                if kind == "param":
                    known[name] = text
                items.append({"kind": kind, "name": name, "value": text})
            elif known[name] != text:
                # MLflow refuses a parameter's second value, and would forget a tag's first one.
                name, text = cut(f"resumed.{name}", _LONGEST_NAME, name=True), cut(text, LONGEST_TAG)
                items.append({"kind": "tag", "name": name, "value": text})
        self._sender.put(items)

    def _reopen(self, run_id: str, store: str) -> list[Outbox] | None:
        """Go on with a run, if the store still has it; returns what earlier processes could not send of it."""
        try:
            run = self._client.get_run(run_id)
            known = run.info.lifecycle_stage == "active"
        except MlflowException as error:
            if not is_refusal(error):
                raise
            known = False
        if not known:
            logger.warning("MLflow does not know the run %s any more: a new one is started", run_id)
            return None
        # Before the server is asked what it has: another process may be sending it.
        spools = Spool.left_over(self._folder, f"{store}-{run_id}", patience_s=_LEFT_OVER_PATIENCE_S)
        boxes = [Outbox(self._client, run_id, spool) for spool in spools]
        self._client.update_run(run_id, status="RUNNING")
        for name in run.data.metrics:
            # A node's steps are never done again, and its curves are long.
            if not name.startswith(SYSTEM_PREFIX):
                self._recorded[name] = max(recorded_steps(self._client, run_id, name))
        self._known = {"param": dict(run.data.params), "tag": dict(run.data.tags)}
        for box in boxes:
            box.forget("status")
            for item in box.items("metric"):
                self._recorded[item["name"]] = max(item["step"], self._recorded.get(item["name"], -1))
            for kind in ("param", "tag"):
                self._known[kind] |= {item["name"]: item["value"] for item in box.items(kind)}
        return boxes

    def _left_over(self, store: str) -> list[Outbox]:
        """What other runs could not send to this store."""
        spools = Spool.left_over(self._folder, store)
        return [Outbox(self._client, spool.owner.rpartition("-")[2], spool) for spool in spools]

    def _create(self, run_name: str) -> str:
        return str(self._client.create_run(self._experiment, run_name=run_name).info.run_id)

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
    """Let no other run open a new database meanwhile: MLflow makes its tables without looking who else does.

    SQLite is kept from other processes of this machine, PostgreSQL from all. Raises at once what a database raises
    that cannot be opened: MLflow would try for minutes.
    """
    kind = uri.partition(":")[0].partition("+")[0]
    if kind not in ("sqlite", "postgresql", "mysql", "mssql"):
        yield
        return
    with contextlib.ExitStack() as stack:
        if uri.startswith("sqlite:///"):
            folder = Path(uri.removeprefix("sqlite:///")).parent
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
        connection = stack.enter_context(engine.connect())
        if kind == "postgresql":
            # Held until the connection is closed.
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({_POSTGRESQL_LOCK})"))
        yield


def _spool_folder(config: TrackingConfig) -> Path:
    """The folder for what waits.

    Raises:
        StorageError: it cannot be written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    # A container may have no home that can be written.
    usual = (cache / "qa_ray", Path(tempfile.gettempdir()) / f"qa_ray-{os.getuid()}")
    for folder in (Path(config.spool),) if config.spool else usual:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(folder, os.W_OK):
                return folder.absolute()
    raise StorageError(f"tracking.spool={folder} cannot be written: name a folder on this machine's disk")


def _environment_tags() -> dict[str, str]:
    found = describe_environment()
    tags = {f"environment.{name}": value for name, value in found.items()}
    return tags | ({"mlflow.source.git.commit": found["git_commit"]} if "git_commit" in found else {})


def _dataset(use: DataUse) -> dict[str, str]:
    """The fields of MLflow's data set; what MLflow's own classes would read back from it."""
    columns = [{"name": name, "type": kind, "required": True} for name, kind in use.columns.items()]
    return {
        "name": cut(use.name, 500),
        "digest": use.digest[:36],
        "source_type": use.source_type,
        "source": json.dumps({"path" if use.on_hub else "uri": use.source}),
        "schema": json.dumps({"mlflow_colspec": columns}),
        "profile": json.dumps({name: value for name, value in use.profile.items() if math.isfinite(value)}),
    }


def _milliseconds() -> int:
    return round(time.time() * 1000)
