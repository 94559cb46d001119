"""Each item once, with a server that loses requests, answers or whole runs."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from qa_ray.tracking.mlflow_outbox import Outbox, bound_requests, is_refusal, reason, uploading
from qa_ray.tracking.spool import Item, Spool

AWAY = MlflowException("API request to http://host/api failed with exception: refused")


class FakeServer:
    """The part of MLflow's client that an outbox uses; keeps what it is sent, and fails as it is told."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int]] = []
        self.params: dict[str, str] = {}
        self.folders: list[str] = []
        self.status = "RUNNING"
        self.batches: list[int] = []
        self.before: Exception | None = None
        """Raised before a request is taken."""
        self.after: Exception | None = None
        """Raised once a request was taken: its answer is lost."""
        self.no_folders: Exception | None = None
        self.stage = "active"

    @contextmanager
    def request(self) -> Iterator[None]:
        if self.before:
            raise self.before
        yield
        if self.after:
            raise self.after

    def log_batch(self, run_id: str, metrics=(), params=(), tags=(), synchronous=False) -> None:
        assert synchronous
        with self.request():
            if any(point.key == "bad name!" for point in metrics) or self.stage != "active":
                raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no such name"})
            self.batches.append(len(metrics) + len(params) + len(tags))
            self.points += [(point.key, point.step) for point in metrics]
            self.params |= {param.key: param.value for param in params}

    def get_metric_history(self, run_id: str, name: str) -> list[Any]:
        return [SimpleNamespace(step=step) for key, step in self.points if key == name]

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(lifecycle_stage=self.stage, status=self.status))

    def log_artifacts(self, run_id: str, folder: str, name: str) -> None:
        with self.request():
            if self.no_folders:
                raise self.no_folders
            self.folders.append(name)

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        with self.request():
            self.status = status


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def open_outbox(server: FakeServer, tmp_path: Path) -> Callable[[], Outbox]:
    """An outbox of a new process: with what an earlier one has left."""

    def open_outbox() -> Outbox:
        spools = Spool.left_over(tmp_path / "spool", "run") or [Spool.create(tmp_path / "spool", "run")]
        return Outbox(server, "run", spools[0])

    return open_outbox


def metrics(*steps: int, name: str = "loss") -> list[Item]:
    return [{"kind": "metric", "name": name, "value": 1.0, "step": step, "time": 1} for step in steps]


def param(number: int) -> Item:
    return {"kind": "param", "name": f"p{number}", "value": "v"}


STATUS: Item = {"kind": "status", "status": "FINISHED", "time": 1}


def test_request_that_did_not_arrive_is_sent_again(server: FakeServer, open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    outbox.put(metrics(1, 2))
    server.before = AWAY
    assert outbox.send() is AWAY
    outbox.put(metrics(3))
    server.before = None
    assert outbox.send() is None
    assert server.points == [("loss", 1), ("loss", 2), ("loss", 3)]
    assert len(outbox) == 0


def test_request_whose_answer_was_lost_is_not_sent_again(server: FakeServer, open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    outbox.put(metrics(1, 2))
    server.after = AWAY
    assert outbox.send() is AWAY
    # The same step of another metric has not been sent.
    outbox.put([*metrics(3), *metrics(2, name="f1")])
    server.after = None
    assert outbox.send() is None
    assert sorted(server.points) == [("f1", 2), ("loss", 1), ("loss", 2), ("loss", 3)]


def test_process_that_is_killed_before_it_noted_the_answer_sends_once(
    server: FakeServer, open_outbox: Callable[[], Outbox]
) -> None:
    outbox = open_outbox()
    outbox.put(metrics(1, 2))
    server.after = AWAY
    outbox.send()
    outbox.close()
    server.after = None
    again = open_outbox()
    again.put(metrics(3))
    assert again.send() is None
    assert server.points == [("loss", 1), ("loss", 2), ("loss", 3)]


def test_batches_keep_to_the_limits_of_the_server(server: FakeServer, open_outbox: Callable[[], Outbox]) -> None:
    outbox = open_outbox()
    outbox.put([*metrics(*range(2500)), *map(param, range(250))])
    assert outbox.send() is None
    assert server.batches == [100, 100, 50, 1000, 1000, 500]
    assert len(server.points) == 2500
    assert len(server.params) == 250


def test_item_that_the_server_refuses_is_dropped_with_a_warning(
    server: FakeServer, open_outbox: Callable[[], Outbox], caplog: pytest.LogCaptureFixture
) -> None:
    outbox = open_outbox()
    outbox.put([*metrics(*range(7)), *metrics(3, name="bad name!"), *metrics(7)])
    assert outbox.send() is None
    assert server.points == [("loss", step) for step in range(8)]
    assert "bad name!" in caplog.text
    assert len(outbox) == 0


def test_run_that_was_deleted_is_said_once_and_given_up(
    server: FakeServer, open_outbox: Callable[[], Outbox], caplog: pytest.LogCaptureFixture
) -> None:
    outbox = open_outbox()
    outbox.put(metrics(1, 2, 3))
    server.stage = "deleted"
    assert outbox.send() is None
    assert len(outbox) == 0
    assert len(caplog.records) == 1
    assert "does not know the run run any more" in caplog.text


def test_files_that_cannot_be_stored_hold_nothing_else_up(
    server: FakeServer, open_outbox: Callable[[], Outbox], tmp_path: Path
) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "predictions.json").write_text("{}")
    outbox = open_outbox()
    outbox.put_folder(tmp_path / "evaluation", "evaluation")
    outbox.put([*metrics(1), STATUS])
    server.no_folders = PermissionError("no credentials")
    assert outbox.send() is server.no_folders
    assert (server.points, server.status) == ([("loss", 1)], "FINISHED")
    outbox.close()
    # A later process has them, though the folder itself is gone.
    (tmp_path / "evaluation" / "predictions.json").unlink()
    (tmp_path / "evaluation").rmdir()
    server.no_folders = None
    later = open_outbox()
    assert later.send() is None
    assert server.folders == ["evaluation"]
    later.close()
    assert not list((tmp_path / "spool").iterdir())


def test_run_is_not_said_to_be_finished_before_its_metrics_are_there(
    server: FakeServer, open_outbox: Callable[[], Outbox]
) -> None:
    outbox = open_outbox()
    outbox.put([STATUS, *metrics(1)])
    server.before = AWAY
    outbox.send()
    server.before, server.after = None, AWAY
    outbox.send()
    assert (server.points, server.status) == ([("loss", 1)], "RUNNING")


def test_end_that_is_told_late_does_not_change_how_the_run_ended_since(
    server: FakeServer, open_outbox: Callable[[], Outbox]
) -> None:
    outbox = open_outbox()
    outbox.put([*metrics(1), STATUS | {"status": "FAILED"}])
    outbox.close()
    server.status = "FINISHED"
    assert open_outbox().send() is None
    assert (server.points, server.status) == ([("loss", 1)], "FINISHED")


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}), True),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}), True),
        (
            MlflowException("API request to endpoint /api failed with error code 404 != 200", RESOURCE_DOES_NOT_EXIST),
            False,
        ),
        (RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "database is locked"}), False),
        (AWAY, False),
        (OSError("broken pipe"), False),
    ],
    ids=["bad value", "no such run", "404 of a proxy", "locked", "away", "broken"],
)
def test_only_what_the_server_itself_refuses_is_given_up(error: Exception, refused: bool) -> None:
    assert is_refusal(error) is refused


def test_reason_tells_neither_password_nor_objects() -> None:
    long = (
        "API request to http://me:pw@host:5000/api/2.0/mlflow/runs/log-batch failed with exception "
        "HTTPConnectionPool(host='host', port=5000): Max retries exceeded with url: /api/2.0 (Caused by "
        "NewConnectionError(\"HTTPConnection(host='host', port=5000): [Errno 111] Connection refused\"))"
    )
    assert reason(MlflowException(long)) == "http://host:5000: [Errno 111] Connection refused"


@pytest.mark.parametrize("chosen", [None, "99"], ids=["ours", "chosen by the user"])
def test_requests_are_bounded_and_uploads_have_longer(monkeypatch: pytest.MonkeyPatch, chosen: str | None) -> None:
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    for name in names:
        monkeypatch.setenv(name, chosen or "")
        if chosen is None:
            monkeypatch.delenv(name)
    bound_requests()
    bounded = [int(os.environ[name]) for name in names]
    with uploading(retries=3):
        upload = [int(os.environ[name]) for name in names]
    assert [int(os.environ[name]) for name in names] == bounded
    assert bounded == ([99, 99] if chosen else [15, 0])
    assert upload == ([99, 99] if chosen else [300, 3])
