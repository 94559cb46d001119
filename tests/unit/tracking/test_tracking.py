"""What is recorded in MLflow's local store."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.data import get_source
from mlflow.exceptions import MlflowException

from qa_ray.config.fine_tuning import Config, flatten
from qa_ray.config.operation import TrackingConfig
from qa_ray.errors import StorageError
from qa_ray.tracking.mlflow_tracker import MlflowTracker
from qa_ray.tracking.records import Candidate, DataUse, RunStatus
from qa_ray.tracking.tracker import NullTracker, Tracker, start_tracker


@pytest.fixture
def local_store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    shutil.copy(empty_database, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
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
    tracker.finish(RunStatus.FINISHED)
    run = only_run(local_store)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params["window.stride"] == "128"
    assert curve(local_store, "train_loss") == [(1, 2.0), (2, 1.0)]
    assert (tmp_path / "mlartifacts" / run.info.run_id / "artifacts" / "evaluation" / "predictions.json").exists()
    assert str(tmp_path / "mlflow.db") in tracker.where()
    assert not list((tmp_path / "cache" / "qa_ray").iterdir())


def resumed(tracker: Tracker) -> Tracker:
    """A tracker of another process that goes on with the record."""
    tracker.finish(RunStatus.FAILED)
    return start_tracker(TrackingConfig(), "another name", tracker.run_id)


def test_run_that_goes_on_keeps_its_record(local_store: MlflowClient) -> None:
    first = start_tracker(TrackingConfig(), "first")
    second = resumed(first)
    assert second.run_id == first.run_id
    assert only_run(local_store).info.status == "RUNNING"
    second.finish(RunStatus.FINISHED)
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
    tracker.finish(RunStatus.FINISHED)
    assert curve(local_store, "train_loss") == [(10, 3.0), (20, 2.0), (30, 1.0), (40, 0.5)]
    assert curve(local_store, "eval_f1") == [(20, 50.0), (40, 52.0)]


def test_first_evaluation_is_recorded_at_step_0(local_store: MlflowClient) -> None:
    tracker = start_tracker(TrackingConfig(), "first")
    tracker.log_metrics({"eval_f1": 5.0}, 0)
    again = resumed(tracker)
    again.log_metrics({"eval_f1": 6.0}, 0)
    again.finish(RunStatus.FINISHED)
    assert curve(local_store, "eval_f1") == [(0, 5.0)]


def test_parameters_that_a_resumed_run_changes_are_noted_beside_the_first_ones(local_store: MlflowClient) -> None:
    tracker = start_tracker(TrackingConfig(), "first")
    tracker.log_params({"train.epochs": 3, "train.seed": 42})
    again = resumed(tracker)
    again.log_params({"train.epochs": 5, "train.seed": 42, "train.new": None})
    again.finish(RunStatus.FINISHED)
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
    first.finish(RunStatus.FAILED)
    local_store.delete_run(first.run_id)
    second = start_tracker(TrackingConfig(), "second", lost)
    second.finish(RunStatus.FINISHED)
    assert second.run_id not in (first.run_id, lost)
    assert only_run(local_store).info.run_name == "second"
    assert f"MLflow does not know the run {lost} any more" in caplog.text


@pytest.mark.parametrize("status", RunStatus)
def test_status_says_how_the_run_ended(local_store: MlflowClient, status: RunStatus) -> None:
    start_tracker(TrackingConfig(), "first").finish(status)
    assert only_run(local_store).info.status == status


def test_metrics_of_a_locked_database_are_recorded_later(
    local_store: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = start_tracker(TrackingConfig(), "first")

    def locked(*_: object, **__: object) -> None:
        raise MlflowException("(sqlite3.OperationalError) database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_batch", locked)
        tracker.log_metrics({"train_loss": 2.0}, step=1)
        assert not tracker.flush()
    assert "database is locked" in caplog.text
    tracker.log_metrics({"train_loss": 1.0}, step=2)
    tracker.finish(RunStatus.FINISHED)
    assert curve(local_store, "train_loss") == [(1, 2.0), (2, 1.0)]


def test_caller_does_not_wait_for_the_store(local_store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = start_tracker(TrackingConfig(), "first")
    assert tracker.flush()
    returned, order = threading.Event(), []

    def slow(*_: object, **__: object) -> None:
        returned.wait(5.0)  # ends only where the caller waits for this
        order.append("sent")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_batch", slow)
        tracker.log_metrics({"train_loss": 2.0}, 1)
        order.append("returned")
        returned.set()
        assert tracker.flush()
    assert order == ["returned", "sent"]
    tracker.finish(RunStatus.FINISHED)


def test_run_goes_on_with_what_could_not_be_sent(local_store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start_tracker(TrackingConfig(), "first")
    assert first.flush()

    def gone(*_: object, **__: object) -> None:
        raise MlflowException("the server is gone")

    with monkeypatch.context() as patched:
        for name in ("log_batch", "set_terminated"):
            patched.setattr(MlflowClient, name, gone)
        first.log_metrics({"train_loss": 2.0}, 5)
        first.log_params({"train.epochs": 3})
        first.finish(RunStatus.FAILED)
    again = start_tracker(TrackingConfig(), "first", first.run_id)
    for step, loss in ((5, 2.5), (6, 1.0)):
        again.log_metrics({"train_loss": loss}, step)
    again.log_params({"train.epochs": 5})
    assert again.flush()
    run = only_run(local_store)
    assert run.info.status == "RUNNING"
    assert curve(local_store, "train_loss") == [(5, 2.0), (6, 1.0)]
    assert (run.data.params["train.epochs"], run.data.tags["resumed.train.epochs"]) == ("3", "5")
    again.finish(RunStatus.FINISHED)


def test_store_that_is_locked_at_the_start_is_tried_again(
    local_store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, calls = MlflowClient.create_run, []

    def locked_once(*arguments: object, **named: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise MlflowException("(sqlite3.OperationalError) database is locked")
        return create(*arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_run", locked_once)
    start_tracker(TrackingConfig(), "first").finish(RunStatus.FINISHED)
    assert only_run(local_store).info.status == "FINISHED"


def test_tags_name_versions_and_what_the_caller_knows(local_store: MlflowClient) -> None:
    tracker = start_tracker(TrackingConfig(), "first", tags={"ray.job_id": "01000000"})
    tracker.set_tags({"data.train": "1", "note": "first " * 2000})
    tracker.set_tags({"data.train": "2"})
    tracker.finish(RunStatus.KILLED)
    again = start_tracker(TrackingConfig(), "first", tracker.run_id, tags={"ray.job_id": "02000000"})
    again.finish(RunStatus.FINISHED)
    tags = only_run(local_store).data.tags
    assert tags["environment.qa_ray"]
    assert tags["data.train"] == "2"
    assert (tags["ray.job_id"], tags["resumed.ray.job_id"]) == ("01000000", "02000000")
    assert tags["note"].endswith("(cut: 12000 characters)")


def test_parameters_hold_no_secret_and_are_cut_to_what_mlflow_takes(local_store: MlflowClient) -> None:
    tracker = start_tracker(TrackingConfig(), "first")
    values = {
        "model.hub_token": "hf_abc",
        "storage.secret_access_key": "abc",
        "data.train": "s3://bucket/train?access_key=abc",
        "evaluate.max_tokens_per_device": 16384,
        "model.tokenizer": "bert",
        "api_key": None,
        "long": "x" * 7000,
        "y" * 300: 1,
    }
    tracker.log_params(values)
    tracker.finish(RunStatus.FINISHED)
    params = only_run(local_store).data.params
    assert len(params) == len(values)
    assert [name for name, value in params.items() if value == "(hidden)"] == list(values)[:3]
    assert params["evaluate.max_tokens_per_device"] == "16384"
    assert params["model.tokenizer"] == "bert"
    assert params["api_key"] == "None"
    assert params["long"].endswith("x... (cut: 7000 characters)")


def test_inputs_can_be_read_back_by_mlflow(local_store: MlflowClient) -> None:
    counted = {"num_questions": 10, "share": float("nan")}
    uses = [
        DataUse(name="train", context="training", source="s3://bucket/train.json", digest="a" * 64, profile=counted),
        DataUse(name="squad", context="validation", source="rajpurkar/squad", digest="b", on_hub=True),
    ]
    tracker = start_tracker(TrackingConfig(), "first")
    tracker.log_inputs(uses)
    tracker.finish(RunStatus.FINISHED)
    again = start_tracker(TrackingConfig(), "first", tracker.run_id)
    again.log_inputs(uses)
    again.finish(RunStatus.FINISHED)
    found = {item.tags[0].value: item.dataset for item in only_run(local_store).inputs.dataset_inputs}
    assert {name: dataset.name for name, dataset in found.items()} == {"training": "train", "validation": "squad"}
    assert get_source(found["training"]).uri == "s3://bucket/train.json"
    assert get_source(found["validation"]).path == "rajpurkar/squad"
    assert json.loads(found["training"].profile) == {"num_questions": 10}


def test_store_that_cannot_be_opened_is_an_error_that_names_it() -> None:
    with pytest.raises(StorageError, match=r"tracking\.uri"):
        MlflowTracker(TrackingConfig(uri="nosuch://store"), "first")


def test_database_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(StorageError, match=r"tracking\.uri.*unable to open database file"):
        MlflowTracker(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", spool=str(tmp_path / "spool")), "first")


def test_spool_that_cannot_be_written_is_an_error_that_names_it(local_store: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"tracking\.spool=.*file/spool"):
        MlflowTracker(TrackingConfig(spool=str(tmp_path / "file" / "spool")), "first")


def test_home_that_cannot_be_written_is_an_error_if_nothing_else_can(
    local_store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match=r"tracking\.spool=.*cannot be written"):
        MlflowTracker(TrackingConfig(), "first")


def test_tracking_that_is_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = start_tracker(TrackingConfig(enabled=False), "first")
    assert isinstance(tracker, NullTracker)
    tracker.log_params({"a": 1})
    tracker.log_metrics({"b": 1.0}, 1)
    tracker.set_tags({"c": "1"})
    tracker.log_inputs([DataUse(name="train", context="training", source="train.json", digest="1")])
    assert tracker.log_model(tmp_path) is None
    assert "not recorded" in tracker.register("qa", Candidate(uri="", metric="f1", score=1.0, data="1"))
    tracker.finish(RunStatus.FINISHED)
    assert tracker.run_id is None
    assert not list(tmp_path.iterdir())
