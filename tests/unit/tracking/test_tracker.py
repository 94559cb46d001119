"""What is recorded in MLflow's local store."""

import json
import shutil
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.data import get_source
from mlflow.exceptions import MlflowException

from qa_ray.config.fields import flatten
from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import TrackingConfig
from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.recording import send_owed, start_tracker
from qa_ray.tracking.tracker import Candidate, DataUse, RunStatus, Tracker


@pytest.fixture
def local_store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    shutil.copy(empty_database, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The run's folder, by which a later process finds its record."""
    return RunFolder(str(tmp_path / "runs"), "first")


@pytest.fixture
def start(local_store: MlflowClient, folder: RunFolder) -> Callable[..., Tracker]:
    """Start the record, or go on with it."""
    return partial(start_tracker, TrackingConfig(), folder)


def only_run(store: MlflowClient):
    (experiment,) = (found for found in store.search_experiments() if found.name == "qa_ray")
    (run,) = store.search_runs([experiment.experiment_id])
    return run


def curve(store: MlflowClient, name: str) -> list[tuple[int, float]]:
    """Steps and values of a metric of the only run."""
    points = store.get_metric_history(only_run(store).info.run_id, name)
    return [(point.step, point.value) for point in points]


def test_parameters_metrics_and_files_are_kept(
    local_store: MlflowClient, start: Callable[..., Tracker], tmp_path: Path
) -> None:
    tracker = start(params=dict(flatten(Config())))
    tracker.log_metrics({"train_loss": 2.0}, step=1, when=1000.5)
    tracker.log_metrics({"train_loss": 1.0}, step=2)
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "predictions.json").write_text("{}")
    tracker.log_folder(lambda: nullcontext(tmp_path / "answers"), "evaluation")
    tracker.finish(RunStatus.FINISHED)
    run = only_run(local_store)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params["window.stride"] == "128"
    assert curve(local_store, "train_loss") == [(1, 2.0), (2, 1.0)]
    assert local_store.get_metric_history(run.info.run_id, "train_loss")[0].timestamp == 1_000_500
    assert (tmp_path / "mlartifacts" / run.info.run_id / "artifacts" / "evaluation" / "predictions.json").exists()
    assert str(tmp_path / "mlflow.db") in tracker.where()


def test_run_that_goes_on_keeps_its_record(local_store: MlflowClient, start: Callable[..., Tracker]) -> None:
    first = start()
    first.finish(RunStatus.FAILED)
    second = start()
    assert second.run_id == first.run_id
    assert only_run(local_store).info.status == "RUNNING"
    second.finish(RunStatus.FINISHED)
    run = only_run(local_store)
    assert (run.info.run_id, run.info.status) == (first.run_id, "FINISHED")


def test_steps_that_are_done_again_are_recorded_once(local_store: MlflowClient, start: Callable[..., Tracker]) -> None:
    tracker = start()
    tracker.log_metrics({"eval_f1": 5.0}, 0)
    for step, loss in ((10, 3.0), (20, 2.0), (30, 1.0)):
        tracker.log_metrics({"train_loss": loss}, step)
    tracker.log_metrics({"eval_f1": 50.0}, 20)
    # A lost worker: the same process sends them again. Then a new process does.
    for _ in range(2):
        tracker.log_metrics({"eval_f1": 6.0}, 0)
        for step, loss in ((20, 2.5), (30, 1.5)):
            tracker.log_metrics({"train_loss": loss}, step)
        tracker.log_metrics({"eval_f1": 51.0}, 20)
        tracker.finish(RunStatus.FAILED)
        tracker = start()
    tracker.log_metrics({"train_loss": 0.5, "eval_f1": 52.0}, 40)
    tracker.finish(RunStatus.FINISHED)
    assert curve(local_store, "train_loss") == [(10, 3.0), (20, 2.0), (30, 1.0), (40, 0.5)]
    assert curve(local_store, "eval_f1") == [(0, 5.0), (20, 50.0), (40, 52.0)]


def test_what_a_resumed_run_changes_is_noted_beside_the_first_values(
    local_store: MlflowClient, start: Callable[..., Tracker]
) -> None:
    first = start(params={"train.epochs": 3, "train.seed": 42}, tags={"ray.job_id": "01000000"})
    first.set_tags({"data.train": "1"})
    first.set_tags({"data.train": "2"})
    first.finish(RunStatus.KILLED)
    for epochs, job in ((5, "02000000"), (6, "03000000")):
        again = start(params={"train.epochs": epochs, "train.seed": 42, "train.new": None}, tags={"ray.job_id": job})
        again.finish(RunStatus.FINISHED)
    run = only_run(local_store)
    assert run.data.params == {"train.epochs": "3", "train.seed": "42", "train.new": "None"}
    assert run.data.tags["environment.qa_ray"]
    assert run.data.tags["data.train"] == "2"
    assert run.data.tags["ray.job_id"] == "01000000"
    assert {name: tag for name, tag in run.data.tags.items() if name.startswith("resumed.")} == {
        "resumed.train.epochs": "6",
        "resumed.ray.job_id": "03000000",
    }


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "of another store"])
def test_record_that_is_gone_is_begun_anew_with_a_warning(
    local_store: MlflowClient,
    start: Callable[..., Tracker],
    folder: RunFolder,
    tmp_path: Path,
    empty_database: Path,
    caplog: pytest.LogCaptureFixture,
    deleted: bool,
) -> None:
    first = start(params={"train.epochs": 3})
    first.finish(RunStatus.FAILED)
    local_store.delete_run(first.run_id)
    shutil.copy(empty_database, tmp_path / "other.db")
    uri = f"sqlite:///{tmp_path}/{'mlflow' if deleted else 'other'}.db"
    second = start_tracker(TrackingConfig(uri=uri), folder)
    second.finish(RunStatus.FINISHED)
    assert second.run_id != first.run_id
    assert only_run(MlflowClient(uri)).data.params == {"train.epochs": "3"}
    assert f"MLflow does not know the run {first.run_id} any more" in caplog.text


@pytest.mark.parametrize("status", RunStatus)
def test_status_says_how_the_run_ended(
    local_store: MlflowClient, start: Callable[..., Tracker], status: RunStatus
) -> None:
    start().finish(status)
    assert only_run(local_store).info.status == status


def test_caller_does_not_wait_for_the_store(
    local_store: MlflowClient, start: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = start()
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


def test_run_that_ended_is_completed_from_its_folder(
    local_store: MlflowClient, start: Callable[..., Tracker], folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start()
    first.log_metrics({"train_loss": 3.0}, 4)
    assert first.flush()

    def locked(*_: object, **__: object) -> None:
        raise MlflowException("(sqlite3.OperationalError) database is locked")

    with monkeypatch.context() as patched:
        for name in ("log_batch", "log_inputs", "log_artifacts", "set_terminated"):
            patched.setattr(MlflowClient, name, locked)
        use = DataUse(name="train", context="training", source="train.json", digest="1")
        second = start(params={"train.epochs": 3}, tags={"ray.job_id": "1"}, inputs=[use])
        second.log_metrics({"train_loss": 2.0}, 5)
        second.finish(RunStatus.FINISHED)
    assert only_run(local_store).info.status == "RUNNING"
    lines = [{"time": 1.0, "phase": "train", "step": step, "train_loss": loss} for step, loss in ((4, 3.0), (5, 2.0))]
    lines[1]["grad_norm"] = None  # fp16 skipped the step: it was infinite
    folder.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    folder.write("evaluation/predictions.json", b"{}")
    send_owed(TrackingConfig(), folder, RunStatus.FINISHED)
    run = only_run(local_store)
    assert run.info.status == "FINISHED"
    assert sorted(curve(local_store, "train_loss")) == [(4, 3.0), (5, 2.0)]
    assert "grad_norm" not in run.data.metrics
    assert run.data.params == {"train.epochs": "3"}
    assert run.data.tags["ray.job_id"] == "1"
    assert run.inputs.dataset_inputs[0].dataset.name == "train"
    assert [file.path for file in local_store.list_artifacts(run.info.run_id)] == ["evaluation"]
    monkeypatch.setattr(MlflowClient, "get_run", locked)  # not even looked at
    send_owed(TrackingConfig(), folder, RunStatus.FINISHED)


def test_store_that_is_locked_at_the_start_is_tried_again(
    local_store: MlflowClient, start: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    create, calls = MlflowClient.create_run, []

    def locked_once(*arguments: object, **named: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise MlflowException("(sqlite3.OperationalError) database is locked")
        return create(*arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_run", locked_once)
    start().finish(RunStatus.FINISHED)
    assert only_run(local_store).info.status == "FINISHED"


def test_texts_hold_no_secret_and_are_cut_to_what_mlflow_takes(
    local_store: MlflowClient, start: Callable[..., Tracker], folder: RunFolder
) -> None:
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
    start(params=values, tags={"note": "first " * 2000}).finish(RunStatus.FINISHED)
    params = only_run(local_store).data.params
    assert len(params) == len(values)
    assert {name for name, value in params.items() if value == "(hidden)"} == set(list(values)[:3])
    assert "abc" not in folder.read("tracking.json").decode()
    assert params["evaluate.max_tokens_per_device"] == "16384"
    assert params["model.tokenizer"] == "bert"
    assert params["api_key"] == "None"
    assert params["long"].endswith("x... (cut: 7000 characters)")
    assert only_run(local_store).data.tags["note"].endswith("(cut: 12000 characters)")


def test_inputs_can_be_read_back_by_mlflow(local_store: MlflowClient, start: Callable[..., Tracker]) -> None:
    counted = {"num_questions": 10, "share": float("nan")}
    uses = [
        DataUse(name="train", context="training", source="s3://bucket/train.json", digest="a" * 64, profile=counted),
        DataUse(name="squad", context="validation", source="rajpurkar/squad", digest="b", on_hub=True),
    ]
    for _ in range(2):
        start(inputs=uses).finish(RunStatus.FINISHED)
    found = {item.tags[0].value: item.dataset for item in only_run(local_store).inputs.dataset_inputs}
    assert {name: dataset.name for name, dataset in found.items()} == {"training": "train", "validation": "squad"}
    assert get_source(found["training"]).uri == "s3://bucket/train.json"
    assert get_source(found["validation"]).path == "rajpurkar/squad"
    assert json.loads(found["training"].profile) == {"num_questions": 10}


def test_store_that_cannot_be_opened_is_an_error_that_names_it(folder: RunFolder) -> None:
    with pytest.raises(StorageError, match=r"tracking\.uri"):
        start_tracker(TrackingConfig(uri="nosuch://store"), folder)


def test_database_that_cannot_be_opened_is_an_error_at_once(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(StorageError, match=r"tracking\.uri.*unable to open database file"):
        start_tracker(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"), folder)


def test_tracking_that_is_off_leaves_nothing(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = start_tracker(TrackingConfig(enabled=False), folder, params={"a": 1})
    tracker.log_metrics({"b": 1.0}, 1)
    tracker.set_tags({"c": "1"})
    assert tracker.log_model(tmp_path) is None
    assert "not recorded" in tracker.register("qa", Candidate(uri="", metric="f1", score=1.0, data="1"))
    tracker.finish(RunStatus.FINISHED)
    assert tracker.run_id is None
    assert not list(tmp_path.iterdir())
