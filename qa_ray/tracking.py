"""What is recorded of a run, and where: the Tracker protocol, its MLflow and its null form, and the metrics' names."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qa_ray.errors import StorageError
from qa_ray.operation import TrackingConfig

logger = logging.getLogger(__name__)

TRAIN_LOSS = "train_loss"
"""Mean loss of the windows since the last record, in nats."""
LEARNING_RATE = "learning_rate"
GRAD_NORM = "grad_norm"
"""Norm of the gradient before clipping."""
WINDOWS_PER_SECOND = "windows_per_second"
TOKENS_PER_SECOND = "tokens_per_second"
"""Over all ranks, padding left out."""
PADDING_SHARE = "padding_share"
"""Padding tokens over all tokens."""
MODEL_FLOPS_UTILIZATION = "model_flops_utilization"
"""Share of the GPU's peak that the model's own arithmetic reaches."""
SKIPPED_STEPS = "skipped_steps"
"""Steps that fp16's gradient scaler has skipped so far."""
PEAK_MEMORY_GB = "peak_memory_gb"
"""Largest resident memory of any worker process so far, in 10^9 bytes."""
EVAL_PREFIX = "eval_"
"""Stands before the validation metrics: eval_f1, eval_exact_match, eval_loss and so on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase has come, with metrics if there are new ones."""

    phase: str
    """`train` or `evaluate`."""
    done: int
    total: int
    """Optimizer steps in training, windows of this rank in evaluation."""
    step: int
    """Optimizer steps made so far."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    time: float = field(default_factory=time.time)
    """When it was recorded, in seconds since 1970."""


Record = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Record nothing."""


class Tracker(Protocol):
    """Keeps parameters and metrics of one run."""

    @property
    def run_id(self) -> str | None:
        """What the record is found by when the run goes on; None if there is none."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record the flattened configuration."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at an optimizer step."""

    def log_folder(self, folder: Path, name: str) -> None:
        """Keep the files of a folder as artifacts under `name`."""

    def finish(self, succeeded: bool) -> None:
        """End the run."""

    def where(self) -> str:
        """Say in a line how to look at the record."""


class NullTracker:
    """Keeps nothing."""

    run_id = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record nothing."""

    def log_folder(self, folder: Path, name: str) -> None:
        """Keep nothing."""

    def finish(self, succeeded: bool) -> None:
        """Do nothing."""

    def where(self) -> str:
        """Say that there is no record."""
        return "not recorded (tracking.enabled is false)"


class MlflowTracker:
    """Keeps the run in an MLflow tracking server, or in a local SQLite file."""

    def __init__(self, config: TrackingConfig, run_name: str, run_id: str | None = None) -> None:
        """Start an MLflow run, or go on with the one of `run_id`.

        Raises:
            StorageError: the server or the file cannot be reached.
        """
        # Imported here and in the methods: it takes seconds, and workers and machines without MLflow use this module.
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"
        self._sent: dict[str, int] = {}
        try:
            self._client = MlflowClient(tracking_uri=self._uri)
            self._experiment = self._experiment_id(config.experiment)
            if run_id is None or not self._reopen(run_id):
                run_id = self._client.create_run(self._experiment, run_name=run_name).info.run_id
        except MlflowException as error:
            raise StorageError(
                f"tracking.uri: the MLflow record cannot be started: {str(error).splitlines()[0]} "
                "(start the server, name another one, or pass --tracking.no-enabled)"
            ) from error
        self._run: str = run_id

    @property
    def run_id(self) -> str:
        """The MLflow run."""
        return self._run

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record the flattened configuration."""
        self._send(lambda: self._log_params({name: str(value) for name, value in params.items()}))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at an optimizer step."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        # Steps that a resumed run does again have been recorded.
        new = {name: value for name, value in metrics.items() if step > self._sent.get(name, -1)}
        self._sent |= dict.fromkeys(new, step)
        if new:
            entries = [Metric(name, value, now, step) for name, value in new.items()]
            self._send(lambda: self._client.log_batch(self._run, entries))

    def log_folder(self, folder: Path, name: str) -> None:
        """Keep the files of a folder as artifacts under `name`."""
        self._send(lambda: self._client.log_artifacts(self._run, str(folder), name))

    def finish(self, succeeded: bool) -> None:
        """End the run."""
        self._send(lambda: self._client.set_terminated(self._run, "FINISHED" if succeeded else "FAILED"))

    def where(self) -> str:
        """Say in a line how to look at the record."""
        if self._uri.startswith("sqlite:"):
            return f"run {self._run}; look at it with: mlflow ui --backend-store-uri {self._uri}"
        return f"run {self._run} of experiment {self._experiment} on the tracking server"

    def _log_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        known = self._client.get_run(self._run).data.params
        # MLflow refuses a parameter's second value; what a resumed run has changed is noted beside it.
        new = [Param(name, value) for name, value in params.items() if name not in known]
        changed = [
            RunTag(f"resumed.{name}", value) for name, value in params.items() if known.get(name, value) != value
        ]
        self._client.log_batch(self._run, params=new, tags=changed)

    def _reopen(self, run_id: str) -> bool:
        """Go on with a run, if the store still has it."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
            known = run.info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            known = False
        if not known:
            logger.warning("MLflow does not know the run %s any more: a new one is started", run_id)
            return False
        self._client.update_run(run_id, status="RUNNING")
        for name in run.data.metrics:
            self._sent[name] = max(point.step for point in self._client.get_metric_history(run_id, name))
        return True

    def _send(self, call: Callable[[], object]) -> None:
        """Do without what cannot be recorded: a server that is down never stops training."""
        from mlflow.exceptions import MlflowException

        try:
            call()
        except MlflowException as error:
            logger.warning("not recorded in MLflow: %s", str(error).splitlines()[0])

    def _experiment_id(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        # Beside a local database MLflow would put artifacts into the working directory of whoever asks.
        local = self._uri.startswith("sqlite:///")
        place = Path(self._uri.removeprefix("sqlite:///")).parent / "mlartifacts" if local else None
        return str(self._client.create_experiment(name, artifact_location=place.as_uri() if place else None))


def start_tracker(config: TrackingConfig, run_name: str, run_id: str | None = None) -> Tracker:
    """Start the record of a run, go on with that of `run_id`, or take a null one if tracking is off."""
    return MlflowTracker(config, run_name, run_id) if config.enabled else NullTracker()
