"""The record in a tracking server that goes away, and with many writers at once."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow_server import MlflowServer

from qa_ray.config.operation import TrackingConfig
from qa_ray.errors import StorageError
from qa_ray.model.folder import open_model
from qa_ray.tracking.records import Candidate, RunStatus
from qa_ray.tracking.tracker import Tracker, start_tracker

NUM_WRITERS = 6
WRITER = """
import sys
from qa_ray.config.operation import TrackingConfig
from qa_ray.tracking.records import RunStatus
from qa_ray.tracking.tracker import start_tracker

uri, spool, name, num_steps = sys.argv[1:]
tracker = start_tracker(TrackingConfig(uri=uri, spool=spool), name)
print(tracker.run_id, flush=True)
sys.stdin.readline()  # until the test says so
for step in range(int(num_steps)):
    tracker.log_metrics({"loss": 1.0 / (step + 1), "rate": 0.1}, step)
    if step % 10 == 9:
        tracker.flush()
tracker.log_params({"name": name})
if sys.stdin.readline():  # the test lets it end
    tracker.finish(RunStatus.FINISHED)
"""


@pytest.fixture(scope="module")
def only_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder)
    server = MlflowServer(folder)
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture
def server(only_server: MlflowServer) -> MlflowServer:
    """The server of all tests here, running whatever the test before did to it."""
    return only_server.start()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start(server: MlflowServer, spool: Path) -> Callable[..., Tracker]:
    def start(name: str, run_id: str | None = None) -> Tracker:
        return start_tracker(TrackingConfig(uri=server.uri, spool=str(spool)), name, run_id)

    return start


def points(uri: str, run_id: str, name: str = "loss") -> Counter[int]:
    """How often the store has each step of a metric."""
    return Counter(point.step for point in MlflowClient(uri).get_metric_history(run_id, name))


def writer(uri: str, spool: Path, name: str, num_steps: int) -> subprocess.Popen[str]:
    """A process of its own that records a run."""
    command = [sys.executable, "-c", WRITER, uri, str(spool), name, str(num_steps)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_server_that_goes_and_comes_back_has_everything_once(
    server: MlflowServer, spool: Path, start: Callable[..., Tracker], tmp_path: Path, how: signal.Signals
) -> None:
    tracker = start("first")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "predictions.json").write_text("{}")
    for step in range(500):
        tracker.log_metrics({"loss": 1.0}, step)
    # The sender is at work, or about to be.
    server.stop(how)
    for step in range(500, 1200):
        tracker.log_metrics({"loss": 1.0}, step)
    tracker.log_params({"p": 1})
    tracker.set_tags({"t": "1"})
    tracker.log_folder(tmp_path / "evaluation", "evaluation")
    assert not tracker.flush()
    server.start()
    tracker.log_metrics({"loss": 1.0}, 1200)
    tracker.finish(RunStatus.FINISHED)
    assert points(server.uri, tracker.run_id) == Counter(range(1201))
    client = MlflowClient(server.uri)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"p": "1"}
    assert run.data.tags["t"] == "1"
    (file,) = client.list_artifacts(tracker.run_id, "evaluation")
    assert file.path == "evaluation/predictions.json"
    assert not list(spool.iterdir())


def test_run_that_ends_without_its_server_is_completed_by_the_next_run(
    server: MlflowServer, spool: Path, start: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    first = start("first")
    server.stop()
    first.log_metrics({"loss": 1.0}, 1)
    first.finish(RunStatus.KILLED)
    assert f"could not be sent to MLflow and wait in {spool}" in caplog.text
    with pytest.raises(StorageError, match=r"tracking\.uri: the MLflow record cannot be started: http.*refused"):
        start("second")
    server.start()
    second = start("second")
    second.finish(RunStatus.FINISHED)
    assert points(server.uri, first.run_id) == Counter([1])
    assert MlflowClient(server.uri).get_run(first.run_id).info.status == "KILLED"
    assert not list(spool.iterdir())


def test_run_that_is_killed_without_its_server_is_completed_when_it_goes_on(
    server: MlflowServer, spool: Path, start: Callable[..., Tracker]
) -> None:
    process = writer(server.uri, spool, "first", 30)
    run_id = process.stdout.readline().strip()
    server.stop()
    process.stdin.write("go\n")
    process.stdin.flush()
    file = next(spool.glob("*.jsonl"))
    while '"kind": "param", "name": "name"' not in file.read_text():
        assert process.poll() is None
    process.kill()
    process.wait()
    server.start()
    again = start("first", run_id)
    # A checkpoint's history: what it was given before, and one step more.
    for step in range(20, 31):
        again.log_metrics({"loss": 2.0, "rate": 0.1}, step)
    again.log_params({"name": "first"})
    again.finish(RunStatus.FINISHED)
    run = MlflowClient(server.uri).get_run(run_id)
    assert (run.info.status, run.data.params) == ("FINISHED", {"name": "first"})
    assert points(server.uri, run_id) == points(server.uri, run_id, "rate") == Counter(range(31))
    assert not list(spool.iterdir())


def write_at_once(uri: str, spool: Path) -> None:
    """Let writers start, write and end together, and check what they wrote."""
    processes = [writer(uri, spool, f"run{number}", 50) for number in range(NUM_WRITERS)]
    run_ids = [process.stdout.readline().strip() for process in processes]
    for _ in range(2):
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
    assert [process.wait() for process in processes] == [0] * NUM_WRITERS
    client = MlflowClient(uri)
    for number, run_id in enumerate(run_ids):
        run = client.get_run(run_id)
        assert (run.info.status, run.data.params) == ("FINISHED", {"name": f"run{number}"})
        assert points(uri, run_id) == points(uri, run_id, "rate") == Counter(range(50))
    assert len({client.get_run(run_id).info.experiment_id for run_id in run_ids}) == 1
    assert not list(spool.iterdir())


def test_many_writers_share_a_server(server: MlflowServer, spool: Path) -> None:
    write_at_once(server.uri, spool)


def test_many_writers_share_a_new_sqlite_file(tmp_path: Path, spool: Path) -> None:
    write_at_once(f"sqlite:///{tmp_path}/new/mlflow.db", spool)


def test_many_writers_share_a_postgresql_database(spool: Path) -> None:
    uri = os.environ.get("QA_RAY_TEST_POSTGRESQL")
    if uri is None:
        pytest.skip("QA_RAY_TEST_POSTGRESQL names no database (postgresql+psycopg2://USER@HOST/DATABASE)")
    write_at_once(uri, spool)


def test_server_takes_a_model_and_makes_the_better_one_champion(
    server: MlflowServer, spool: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = start_tracker(TrackingConfig(uri=server.uri, spool=str(spool)), "registered")
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
