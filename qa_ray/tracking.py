"""What is recorded of a run: the metrics' names, and the Tracker protocol with its null form."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qa_ray.operation import TrackingConfig
from qa_ray.records import Candidate, DataUse, RunStatus

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
    """Keeps parameters and metrics of one run. Nothing waits for a server but the start, the end, and models."""

    @property
    def run_id(self) -> str | None:
        """What the record is found by when the run goes on; None if there is none."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record the flattened configuration."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record what the run is found by."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at an optimizer step."""

    def log_inputs(self, inputs: Sequence[DataUse]) -> None:
        """Record the data sets that the run reads."""

    def log_folder(self, folder: Path, name: str) -> None:
        """Keep the files of a folder as artifacts under `name`."""

    def log_model(self, folder: Path, step: int = 0) -> str | None:
        """Log a fine-tuned model, and return its URI; None if there is no record.

        Raises:
            StorageError: the server cannot be reached.
        """

    def register(self, name: str, candidate: Candidate) -> str:
        """Make a logged model a version of the registered model `name`, and say how it compares.

        Raises:
            StorageError: the server cannot be reached.
        """

    def finish(self, status: RunStatus) -> None:
        """End the run."""

    def where(self) -> str:
        """Say in a line how to look at the record."""


class NullTracker:
    """Keeps nothing."""

    run_id = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record nothing."""

    def log_inputs(self, inputs: Sequence[DataUse]) -> None:
        """Record nothing."""

    def log_folder(self, folder: Path, name: str) -> None:
        """Keep nothing."""

    def log_model(self, folder: Path, step: int = 0) -> None:
        """Keep nothing."""

    def register(self, name: str, candidate: Candidate) -> str:
        """Say that there is no record."""
        return self.where()

    def finish(self, status: RunStatus) -> None:
        """Do nothing."""

    def where(self) -> str:
        """Say that there is no record."""
        return "not recorded (tracking.enabled is false)"


def start_tracker(
    config: TrackingConfig, run_name: str, run_id: str | None = None, tags: Mapping[str, str] | None = None
) -> Tracker:
    """Start the record of a run, go on with that of `run_id`, or take a null one if tracking is off.

    Args:
        config: where it is kept.
        run_name: a new run's name.
        run_id: of an earlier process of the same run.
        tags: what the run is found by, besides versions, hardware and commit: Ray's job, the model, the data.

    Raises:
        StorageError: the record cannot be started.
    """
    if not config.enabled:
        return NullTracker()
    # Here, since MLflow takes seconds to import, and workers need only the names above.
    from qa_ray.mlflow_tracking import MlflowTracker

    return MlflowTracker(config, run_name, run_id, tags)
