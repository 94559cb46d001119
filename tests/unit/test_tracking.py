"""What is recorded in MLflow's local store."""

import logging
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from qa_ray.config import Config, flatten
from qa_ray.errors import StorageError
from qa_ray.operation import TrackingConfig
from qa_ray.tracking import MlflowTracker, NullTracker, Tracker, start_tracker


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new local store's file, which takes MLflow a second to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def local_store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    shutil.copy(empty_database, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def only_run(store: MlflowClient):
    (experiment,) = (found for found in store.search_experiments() if found.name == "qa_ray")
    (run,) = store.search_runs([experiment.experiment_id])
    return run


def curve(store: MlflowClient, name: str) -> list[tuple[int, float]]:
    """Steps and values of a metric of the only run."""
    points = store.get_metric_history(only_run(store).info.run_id, name)
    return [(point.step, point.value) for point in points]


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
    assert curve(local_store, "train_loss") == [(1, 2.0), (2, 1.0)]
    assert (tmp_path / "mlartifacts" / run.info.run_id / "artifacts" / "evaluation" / "predictions.json").exists()
    assert str(tmp_path / "mlflow.db") in tracker.where()


def resumed(tracker: Tracker) -> Tracker:
    """A tracker of another process that goes on with the record."""
    tracker.finish(succeeded=False)
    return start_tracker(TrackingConfig(), "another name", tracker.run_id)


def test_run_that_goes_on_keeps_its_record(local_store: MlflowClient) -> None:
    first = start_tracker(TrackingConfig(), "first")
    second = resumed(first)
    assert second.run_id == first.run_id
    assert only_run(local_store).info.status == "RUNNING"
    second.finish(succeeded=True)
    run = only_run(local_store)
    assert (run.info.run_id, run.info.run_name, run.info.status) == (first.run_id, "first", "FINISHED")


def test_steps_that_are_done_again_are_recorded_once(local_store: MlflowClient) -> None:
    tracker = start_tracker(TrackingConfig(), "first")
    for step, loss in ((10, 3.0), (20, 2.0), (30, 1.0)):
        tracker.log_metrics({"train_loss": loss}, step)
    tracker.log_metrics({"eval_f1": 50.0}, 20)
    # A lost worker: the same process sends them again. Then a new process does.
    for _ in range(2):
        for step, loss in ((20, 2.5), (30, 1.5)):
            tracker.log_metrics({"train_loss": loss}, step)
        tracker.log_metrics({"eval_f1": 51.0}, 20)
        tracker = resumed(tracker)
    tracker.log_metrics({"train_loss": 0.5, "eval_f1": 52.0}, 40)
    assert curve(local_store, "train_loss") == [(10, 3.0), (20, 2.0), (30, 1.0), (40, 0.5)]
    assert curve(local_store, "eval_f1") == [(20, 50.0), (40, 52.0)]


def test_first_evaluation_is_recorded_at_step_0(local_store: MlflowClient) -> None:
    tracker = start_tracker(TrackingConfig(), "first")
    tracker.log_metrics({"eval_f1": 5.0}, 0)
    resumed(tracker).log_metrics({"eval_f1": 6.0}, 0)
    assert curve(local_store, "eval_f1") == [(0, 5.0)]


def test_parameters_that_a_resumed_run_changes_are_noted_beside_the_first_ones(local_store: MlflowClient) -> None:
    tracker = start_tracker(TrackingConfig(), "first")
    tracker.log_params({"train.epochs": 3, "train.seed": 42})
    resumed(tracker).log_params({"train.epochs": 5, "train.seed": 42, "train.new": None})
    run = only_run(local_store)
    assert run.data.params == {"train.epochs": "3", "train.seed": "42", "train.new": "None"}
    assert {name: tag for name, tag in run.data.tags.items() if name.startswith("resumed.")} == {
        "resumed.train.epochs": "5"
    }


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "of another store"])
def test_record_that_is_gone_is_begun_anew_with_a_warning(
    local_store: MlflowClient, caplog: pytest.LogCaptureFixture, deleted: bool
) -> None:
    first = start_tracker(TrackingConfig(), "first")
    lost = first.run_id if deleted else "0" * 32
    local_store.delete_run(first.run_id)
    second = start_tracker(TrackingConfig(), "second", lost)
    second.log_metrics({"train_loss": 1.0}, 1)
    assert second.run_id not in (first.run_id, lost)
    assert only_run(local_store).info.run_name == "second"
    assert f"MLflow does not know the run {lost} any more" in caplog.text


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
    assert tracker.run_id is None
    assert not list(tmp_path.iterdir())
