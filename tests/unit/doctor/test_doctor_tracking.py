"""Whether MLflow will take the record: a local file, a server that is dead, an experiment that was deleted."""

import shutil
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from mlflow import MlflowClient

from qa_ray.config.operation import TrackingConfig
from qa_ray.doctor.tracking import is_server, reach, reached, record
from qa_ray.doctor.verdict import Status
from qa_ray.errors import ClusterError


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_tracking_that_is_off_is_skipped() -> None:
    assert record(TrackingConfig(enabled=False)).status is Status.SKIPPED


def test_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    verdict = record(TrackingConfig(uri=f"sqlite:///{tmp_path}/new/mlflow.db"))
    assert verdict.status is Status.PASSED
    assert "will be made" in verdict.seen
    assert not list(tmp_path.iterdir())


def test_place_where_no_file_can_be_made_fails(tmp_path: Path) -> None:
    verdict = record(TrackingConfig(uri="sqlite:////proc/mlflow.db"))
    assert verdict.status is Status.FAILED
    assert "--tracking.uri" in verdict.cure


def test_store_is_asked_for_the_experiment(store: str) -> None:
    assert "the experiment qa_ray will be made" in record(TrackingConfig(uri=store)).seen
    MlflowClient(store).create_experiment("mine")
    verdict = record(TrackingConfig(uri=store, experiment="mine", registered_model="trips"))
    assert verdict.status is Status.PASSED
    assert "has the experiment mine" in verdict.seen


def test_deleted_experiment_fails_and_says_how_to_restore_it(store: str) -> None:
    client = MlflowClient(store)
    identifier = client.create_experiment("mine")
    client.delete_experiment(identifier)
    verdict = record(TrackingConfig(uri=store, experiment="mine"))
    assert verdict.status is Status.FAILED
    assert f"mlflow experiments restore -x {identifier}" in verdict.cure


def test_file_that_is_no_database_fails(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at" * 100)
    assert record(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")).status is Status.FAILED


def test_dead_server_fails_at_once_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:open-sesame@127.0.0.1:{free_port()}")
    verdict = record(TrackingConfig())
    assert verdict.status is Status.FAILED
    assert "start the server" in verdict.cure
    assert "open-sesame" not in f"{verdict}"


def test_server_that_wants_a_login_says_which_variables() -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        verdict = record(TrackingConfig(uri=f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert verdict.status is Status.FAILED
    assert "MLFLOW_TRACKING_USERNAME" in verdict.cure


def test_node_that_cannot_reach_the_server_is_a_warning() -> None:
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1 cannot be reached") as raised:
        reach(f"http://127.0.0.1:{free_port()}")
    verdict = reached(1, {"odd": str(raised.value)})
    assert verdict.status is Status.WARNING
    assert "from odd" in verdict.seen
    assert reached(2, {}).status is Status.PASSED


def test_node_that_reaches_the_server_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach(f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("uri", "expected"), [("http://host:5000", True), ("https://host", True), ("sqlite:///a.db", False)]
)
def test_only_http_addresses_are_servers(uri: str, expected: bool) -> None:
    assert is_server(TrackingConfig(uri=uri)) == expected
    assert not is_server(TrackingConfig(uri=uri, enabled=False))
