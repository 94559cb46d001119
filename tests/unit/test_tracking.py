"""What is recorded in MLflow's local store."""

import logging
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from qa_ray.config import Config, flatten
from qa_ray.errors import StorageError
from qa_ray.operation import TrackingConfig
from qa_ray.tracking import MlflowTracker, NullTracker, start_tracker


@pytest.fixture
def local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def only_run(store: MlflowClient):
    (experiment,) = (found for found in store.search_experiments() if found.name == "qa_ray")
    (run,) = store.search_runs([experiment.experiment_id])
    return run


def test_parameters_metrics_and_files_are_kept(local_store: MlflowClient, tmp_path: Path) -> None:
    tracker = start_tracker(TrackingConfig(), "first")
    tracker.log_params(dict(flatten(Config())))
    tracker.log_metrics({"train_loss": 2.0}, step=1)
    tracker.log_metrics({"train_loss": 1.0}, step=2)
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "predictions.json").write_text("{}")
    tracker.log_folder(tmp_path / "answers", "evaluation")
    tracker.finish(succeeded=True)
    run = only_run(local_store)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params["window.stride"] == "128"
    curve = local_store.get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 2.0), (2, 1.0)]
    assert (tmp_path / "mlartifacts" / run.info.run_id / "artifacts" / "evaluation" / "predictions.json").exists()
    assert str(tmp_path / "mlflow.db") in tracker.where()


def test_failed_run_is_marked(local_store: MlflowClient) -> None:
    start_tracker(TrackingConfig(), "first").finish(succeeded=False)
    assert only_run(local_store).info.status == "FAILED"


def test_store_that_fails_in_mid_run_is_said_and_survived(
    local_store: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = start_tracker(TrackingConfig(), "first")

    def gone(*_: object, **__: object) -> None:
        raise MlflowException("the server is gone")

    monkeypatch.setattr(MlflowClient, "log_batch", gone)
    with caplog.at_level(logging.WARNING, "qa_ray"):
        tracker.log_metrics({"train_loss": 2.0}, step=1)
    assert "the server is gone" in caplog.text


def test_store_that_cannot_be_opened_is_an_error_that_names_it() -> None:
    with pytest.raises(StorageError, match=r"tracking\.uri"):
        MlflowTracker(TrackingConfig(uri="nosuch://store"), "first")


def test_tracking_that_is_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = start_tracker(TrackingConfig(enabled=False), "first")
    assert isinstance(tracker, NullTracker)
    tracker.log_params({"a": 1})
    tracker.log_metrics({"b": 1.0}, 1)
    tracker.finish(succeeded=True)
    assert not list(tmp_path.iterdir())
