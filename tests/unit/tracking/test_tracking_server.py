"""The record in a tracking server that goes away, and with many writers at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_server import MlflowServer

from qa_ray.config.operation import TrackingConfig
from qa_ray.errors import StorageError
from qa_ray.model.folder import open_model
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.recording import send_owed, start_tracker
from qa_ray.tracking.tracker import Candidate, RunStatus

NUM_WRITERS = 4
WRITER = """
import sys
from qa_ray.config.operation import TrackingConfig
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.recording import start_tracker
from qa_ray.tracking.tracker import RunStatus

uri, storage, name = sys.argv[1:]
tracker = start_tracker(TrackingConfig(uri=uri), RunFolder(storage, name), params={"name": name})
for first in (0, 10):
    for step in range(first, first + 10):
        tracker.log_metrics({"loss": 1.0 / (step + 1), "rate": 0.1}, step)
        tracker.flush()
    print("flushed", flush=True)
    sys.stdin.readline()  # until the test says so
tracker.finish(RunStatus.FINISHED)
"""


def writer(uri: str, storage: Path, name: str) -> subprocess.Popen[str]:
    """A process of its own that records a run."""
    command = [sys.executable, "-c", WRITER, uri, str(storage), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go_on(process: subprocess.Popen[str]) -> None:
    """Wait for a writer, and let it write more."""
    assert process.stdout.readline() == "flushed\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def record(uri: str, storage: Path, name: str) -> Run:
    run_id = json.loads((storage / name / "tracking.json").read_text())["run_id"]
    return MlflowClient(uri).get_run(run_id)


def points(uri: str, run: Run, name: str = "loss") -> Counter[int]:
    """How often the store has each step of a metric."""
    return Counter(point.step for point in MlflowClient(uri).get_metric_history(run.info.run_id, name))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder)
    server = MlflowServer(folder).start()
    yield server
    server.stop(signal.SIGKILL)


@dataclass
class Outage:
    """A server that was killed and came back, and what was said meanwhile."""

    uri: str
    storage: Path
    """Holds the folders of three runs: `living` ended when the server was back, `ended` before, `killed` was killed."""
    said: str


@pytest.fixture(scope="module")
def outage(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Outage:
    storage, config = tmp_path_factory.mktemp("runs"), TrackingConfig(uri=server.uri)
    folders = {name: RunFolder(str(storage), name) for name in ("living", "ended")}
    killed = writer(server.uri, storage, "killed")
    living, ended = (start_tracker(config, folder, params={"p": 1}) for folder in folders.values())
    assert killed.stdout.readline() == "flushed\n"
    for step in range(500):
        living.log_metrics({"loss": 1.0}, step)
    # The thread is at work, or about to be.
    server.stop(signal.SIGKILL)
    for step in range(500, 1200):
        living.log_metrics({"loss": 1.0}, step)
    living.set_tags({"t": "1"})
    folders["living"].write("evaluation/predictions.json", b"{}")
    living.log_folder(lambda: nullcontext(storage / "living" / "evaluation"), "evaluation")
    assert not living.flush()
    killed.stdin.write("go\n")
    killed.stdin.flush()
    assert killed.stdout.readline() == "flushed\n"
    killed.kill()
    killed.wait()
    ended.log_metrics({"loss": 1.0}, 1, 1000.0)
    folders["ended"].write("metrics.jsonl", b'{"time": 1000.0, "phase": "train", "step": 1, "loss": 1.0}\n')
    ended.finish(RunStatus.KILLED)
    with pytest.raises(StorageError) as refused:
        send_owed(config, folders["ended"], RunStatus.KILLED)
    server.start()
    living.log_metrics({"loss": 1.0}, 1200)
    living.finish(RunStatus.FINISHED)
    return Outage(server.uri, storage, str(refused.value))


def test_server_that_goes_and_comes_back_has_everything_once(outage: Outage) -> None:
    run = record(outage.uri, outage.storage, "living")
    assert points(outage.uri, run) == Counter(range(1201))
    assert (run.info.status, run.data.params, run.data.tags["t"]) == ("FINISHED", {"p": "1"}, "1")
    (file,) = MlflowClient(outage.uri).list_artifacts(run.info.run_id, "evaluation")
    assert file.path == "evaluation/predictions.json"
    assert json.loads((outage.storage / "living" / "tracking.json").read_text())["owed"] is False


def test_run_that_ended_without_its_server_is_completed_later(outage: Outage) -> None:
    send_owed(TrackingConfig(uri=outage.uri), RunFolder(str(outage.storage), "ended"), RunStatus.KILLED)
    run = record(outage.uri, outage.storage, "ended")
    assert points(outage.uri, run) == Counter([1])
    assert (run.info.status, run.data.params) == ("KILLED", {"p": "1"})


def test_server_that_is_away_at_the_start_is_an_error_that_names_it(outage: Outage) -> None:
    assert outage.said.startswith("tracking.uri: the MLflow record cannot be started: http")
    assert "refused" in outage.said


def test_run_that_was_killed_without_its_server_is_completed_when_it_goes_on(outage: Outage) -> None:
    again = start_tracker(TrackingConfig(uri=outage.uri), RunFolder(str(outage.storage), "killed"))
    # A checkpoint's history, and what is done again after it.
    for step in range(22):
        again.log_metrics({"loss": 2.0, "rate": 0.1}, step)
    again.finish(RunStatus.FINISHED)
    run = record(outage.uri, outage.storage, "killed")
    assert (run.info.status, run.data.params) == ("FINISHED", {"name": "killed"})
    assert points(outage.uri, run) == points(outage.uri, run, "rate") == Counter(range(22))


def write_at_once(uri: str, storage: Path) -> None:
    """Let writers start, write and end together, and check what they wrote."""
    names = [f"run{number}" for number in range(NUM_WRITERS)]
    processes = [writer(uri, storage, name) for name in names]
    for _ in range(2):
        for process in processes:
            go_on(process)
    assert [process.wait() for process in processes] == [0] * NUM_WRITERS
    runs = [record(uri, storage, name) for name in names]
    for name, run in zip(names, runs, strict=True):
        assert (run.info.status, run.data.params) == ("FINISHED", {"name": name})
        assert points(uri, run) == points(uri, run, "rate") == Counter(range(20))
    assert len({run.info.experiment_id for run in runs}) == 1


def test_many_writers_share_a_new_sqlite_file(tmp_path: Path) -> None:
    write_at_once(f"sqlite:///{tmp_path}/new/mlflow.db", tmp_path / "runs")


def test_many_writers_share_a_postgresql_database(tmp_path: Path) -> None:
    uri = os.environ.get("QA_RAY_TEST_POSTGRESQL")
    if uri is None:
        pytest.skip("QA_RAY_TEST_POSTGRESQL names no database (postgresql+psycopg2://USER@HOST/DATABASE)")
    write_at_once(uri, tmp_path / "runs")


def test_server_takes_a_model_and_makes_the_better_one_champion(
    server: MlflowServer, tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = start_tracker(TrackingConfig(uri=server.uri), RunFolder(str(tmp_path), "registered"))
    champions = []
    for score in (61.5, 60.0, 62.25):
        uri = tracker.log_model(bert, step=3)
        assert uri is not None
        tracker.register("served", Candidate(uri=uri, metric="f1", score=score, data="d"))
        champions.append(MlflowClient(server.uri).get_model_version_by_alias("served", "champion").tags["score"])
    tracker.finish(RunStatus.FINISHED)
    assert champions == ["61.5", "61.5", "62.25"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    saved = open_model("models:/served@champion")
    own = open_model(str(bert))
    assert all(torch.equal(weight, own.model.state_dict()[name]) for name, weight in saved.model.state_dict().items())
