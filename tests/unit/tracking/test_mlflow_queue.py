"""Each item once, with a server that loses requests, answers or whole runs."""

import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from qa_ray.tracking.mlflow_queue import Ending, Folder, MlflowQueue, bound_requests, is_refusal, reason, uploading

AWAY = MlflowException("API request to http://host/api failed with exception: refused")
ENDING = Ending("FINISHED", 1)


class FakeServer:
    """The part of MLflow's client that a queue uses; keeps what it is sent, and fails as it is told."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int]] = []
        self.params: dict[str, str] = {}
        self.folders: list[str] = []
        self.status = "RUNNING"
        self.batches: list[int] = []
        self.stage = "active"
        self.before: dict[str, Exception] = {}
        """Raised before a request of a kind is taken."""
        self.after: Exception | None = None
        """Raised once a request was taken: its answer is lost."""
        self.requests: queue.Queue[Exception | None] = queue.Queue()
        """What became of each request."""

    @contextmanager
    def request(self, kind: str) -> Iterator[None]:
        error = self.before.get(kind)
        self.requests.put(error or self.after)
        if error:
            raise error
        yield
        if self.after:
            raise self.after

    def log_batch(self, run_id: str, metrics=(), params=(), tags=(), synchronous=False) -> None:
        assert synchronous
        with self.request("batch"):
            if any(point.key == "bad name!" for point in metrics) or self.stage != "active":
                raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no such name"})
            self.batches.append(len(metrics) + len(params) + len(tags))
            self.points += [(point.key, point.step) for point in metrics]
            self.params |= {param.key: param.value for param in params}

    def get_metric_history(self, run_id: str, name: str) -> list[Any]:
        return [SimpleNamespace(step=step) for key, step in self.points if key == name]

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(lifecycle_stage=self.stage))

    def log_artifacts(self, run_id: str, folder: str, name: str) -> None:
        with self.request("folder"):
            self.folders.append(name)

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        with self.request("status"):
            self.status = status


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def waiting(server: FakeServer) -> MlflowQueue:
    return MlflowQueue(server, "run")


def points(*steps: int, name: str = "loss") -> list[Metric]:
    return [Metric(name, 1.0, 1, step) for step in steps]


def test_thread_tries_again_and_says_once_that_the_server_is_away_and_back(
    server: FakeServer, waiting: MlflowQueue, caplog: pytest.LogCaptureFixture
) -> None:
    server.before = {"batch": AWAY}
    waiting.put(*points(1, 2))
    assert [server.requests.get() for _ in range(2)] == [AWAY, AWAY]
    waiting.put(*points(3))
    server.before = {}
    while server.requests.get():
        pass
    assert waiting.flush()
    assert server.points == [("loss", 1), ("loss", 2), ("loss", 3)]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "MLflow takes no records for now, training goes on",
        "MLflow takes records again",
    ]


def test_points_of_a_request_whose_answer_was_lost_are_not_sent_again(server: FakeServer, waiting: MlflowQueue) -> None:
    server.after = AWAY
    waiting.put(*points(*range(5)))
    waiting.flush()
    server.after = None
    # The same step of another metric has not been sent. The refused point makes smaller batches of the same points.
    waiting.put(*points(5), *points(2, name="f1"), *points(3, name="bad name!"), *points(6))
    assert waiting.flush()
    assert sorted(server.points) == [("f1", 2), *[("loss", step) for step in range(7)]]


def test_batches_keep_to_the_limits_of_the_server(server: FakeServer, waiting: MlflowQueue) -> None:
    waiting.put(*points(*range(2500)), *(Param(f"p{number}", "v") for number in range(250)))
    assert waiting.flush()
    assert server.batches == [100, 100, 50, 1000, 1000, 500]
    assert (len(server.points), len(server.params)) == (2500, 250)


def test_item_that_the_server_refuses_is_dropped_with_a_warning(
    server: FakeServer, waiting: MlflowQueue, caplog: pytest.LogCaptureFixture
) -> None:
    waiting.put(*points(*range(7)), *points(3, name="bad name!"), *points(7))
    assert waiting.flush()
    assert server.points == [("loss", step) for step in range(8)]
    assert "bad name!" in caplog.text


def test_run_that_was_deleted_is_said_once_and_given_up(
    server: FakeServer, waiting: MlflowQueue, caplog: pytest.LogCaptureFixture
) -> None:
    server.stage = "deleted"
    waiting.put(*points(1, 2, 3), ENDING)
    assert waiting.flush()
    assert (len(waiting), server.status) == (0, "RUNNING")
    (record,) = caplog.records
    assert "does not know the run run any more" in record.getMessage()


def test_files_that_cannot_be_stored_hold_nothing_else_up(server: FakeServer, waiting: MlflowQueue) -> None:
    server.before = {"folder": PermissionError("no credentials")}
    waiting.put(Folder(partial(nullcontext, Path("files")), "evaluation"), *points(1), ENDING)
    assert not waiting.flush()
    assert (server.points, server.status) == ([("loss", 1)], "FINISHED")
    server.before = {}
    assert waiting.close() == 0
    assert server.folders == ["evaluation"]


def test_run_is_not_said_to_be_finished_before_its_metrics_are_there(server: FakeServer, waiting: MlflowQueue) -> None:
    server.before = {"batch": AWAY}
    waiting.put(ENDING, *points(1))
    assert not waiting.flush()
    assert server.status == "RUNNING"
    server.before = {}
    assert waiting.flush()
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
