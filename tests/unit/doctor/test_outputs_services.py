"""Whether MLflow will take the record and the Hub the model: real stores, and servers of our own."""

import shutil
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hub import connected_hub
from hub_state import OWNER, READER, WRITER, Hub
from mlflow import MlflowClient

from qa_ray.config.operation import PublishConfig, TrackingConfig
from qa_ray.doctor.outputs import publication, tracking
from qa_ray.doctor.verdict import Status
from qa_ray.errors import PublishError

REPO = f"{OWNER}/squad"
# unknown: the client itself asks a few things of no account.
READING = {"whoami", "info", "auth-check", "unknown"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with connected_hub(monkeypatch) as server:
        yield server
        assert {route for route, _ in server.requests} <= READING


def scoped(owner: str, *permissions: str) -> dict[str, object]:
    scopes = [{"entity": {"type": "user", "name": owner}, "permissions": list(permissions)}]
    return {"role": "fineGrained", "fineGrained": {"scoped": scopes}}


def test_nothing_is_asked_where_nothing_is_published(hub: Hub) -> None:
    assert publication(PublishConfig()).status is Status.SKIPPED
    assert not hub.requests


def test_missing_token_says_how_to_get_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    verdict = publication(PublishConfig(repo_id=REPO))
    assert verdict.status is Status.FAILED
    assert "HF_TOKEN" in verdict.cure


def test_repository_that_may_be_written_passes(hub: Hub) -> None:
    hub.add_repo(REPO)
    verdict = publication(PublishConfig(repo_id=REPO))
    assert verdict.status is Status.PASSED
    assert verdict.seen == f"{REPO} is there, private, and the token of {OWNER} may write to it"


def test_token_that_may_only_read_a_repository_fails(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_repo(REPO)
    monkeypatch.setenv("HF_TOKEN", READER)
    verdict = publication(PublishConfig(repo_id=REPO))
    assert verdict.status is Status.FAILED
    assert "may not write" in verdict.seen
    assert READER not in f"{verdict}"


def test_repository_that_the_hub_hides_from_writing_fails(hub: Hub) -> None:
    hub.add_repo(REPO)
    hub.fail("auth-check", 401)
    assert "may not write" in publication(PublishConfig(repo_id=REPO)).seen


def test_public_repository_fails_where_a_private_one_is_asked_for(hub: Hub) -> None:
    hub.add_repo(REPO, private=False)
    verdict = publication(PublishConfig(repo_id=REPO))
    assert verdict.status is Status.FAILED
    assert "--publish.no-private" in verdict.cure
    assert publication(PublishConfig(repo_id=REPO, private=False)).status is Status.PASSED


@pytest.mark.parametrize(
    ("repo_id", "token", "status"),
    [
        (REPO, {"role": "write"}, Status.PASSED),
        ("squad", {"role": "write"}, Status.PASSED),
        ("team/squad", {"role": "write"}, Status.PASSED),
        ("stranger/squad", {"role": "write"}, Status.FAILED),
        (REPO, {"role": "read"}, Status.FAILED),
        (REPO, scoped(OWNER, "repo.content.read", "repo.write"), Status.PASSED),
        (REPO, scoped(OWNER, "repo.content.read"), Status.FAILED),
        (REPO, scoped("team", "repo.write"), Status.FAILED),
        (REPO, {"displayName": "old"}, Status.WARNING),
    ],
    ids=[
        "own",
        "own, by name alone",
        "of an organisation",
        "of a stranger",
        "token that reads",
        "scope that writes",
        "scope that reads",
        "scope of another owner",
        "role not told",
    ],
)
def test_new_repository_needs_a_token_that_may_make_it(
    hub: Hub, repo_id: str, token: dict[str, object], status: Status
) -> None:
    hub.access_token = token
    verdict = publication(PublishConfig(repo_id=repo_id))
    assert verdict.status is status
    assert bool(verdict.cure) == (status is not Status.PASSED)


def test_token_that_is_not_valid_is_told_and_not_shown(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    invalid = WRITER.replace("writer", "unread")
    monkeypatch.setenv("HF_TOKEN", invalid)
    with pytest.raises(PublishError, match="the token is not valid") as raised:
        publication(PublishConfig(repo_id=REPO))
    assert invalid not in str(raised.value)


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_tracking_that_is_off_is_skipped() -> None:
    assert tracking(TrackingConfig(enabled=False)).status is Status.SKIPPED


def test_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    verdict = tracking(TrackingConfig(uri=f"sqlite:///{tmp_path}/new/mlflow.db"))
    assert verdict.status is Status.PASSED
    assert "will be made" in verdict.seen
    assert not list(tmp_path.iterdir())


def test_place_where_no_file_can_be_made_fails(tmp_path: Path) -> None:
    verdict = tracking(TrackingConfig(uri="sqlite:////proc/mlflow.db"))
    assert verdict.status is Status.FAILED
    assert "--tracking.uri" in verdict.cure


def test_store_is_asked_for_the_experiment(store: str) -> None:
    assert "the experiment qa_ray will be made" in tracking(TrackingConfig(uri=store)).seen
    MlflowClient(store).create_experiment("mine")
    verdict = tracking(TrackingConfig(uri=store, experiment="mine", registered_model="trips"))
    assert verdict.status is Status.PASSED
    assert "has the experiment mine" in verdict.seen


def test_deleted_experiment_fails_and_says_how_to_restore_it(store: str) -> None:
    client = MlflowClient(store)
    identifier = client.create_experiment("mine")
    client.delete_experiment(identifier)
    verdict = tracking(TrackingConfig(uri=store, experiment="mine"))
    assert verdict.status is Status.FAILED
    assert f"mlflow experiments restore -x {identifier}" in verdict.cure


def test_file_that_is_no_database_fails(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at" * 100)
    assert tracking(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")).status is Status.FAILED


def test_dead_server_fails_at_once_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:open-sesame@127.0.0.1:{free_port()}")
    verdict = tracking(TrackingConfig())
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
        verdict = tracking(TrackingConfig(uri=f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert verdict.status is Status.FAILED
    assert "MLFLOW_TRACKING_USERNAME" in verdict.cure
