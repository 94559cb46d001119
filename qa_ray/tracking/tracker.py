"""Who keeps the record of a run: the Tracker protocol, with its null form."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from qa_ray.config.operation import TrackingConfig
from qa_ray.tracking.records import Candidate, DataUse, RunStatus


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
    from qa_ray.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(config, run_name, run_id, tags)
