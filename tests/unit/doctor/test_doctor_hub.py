"""Whether the token may write, against a Hub of our own; nothing is made there."""

from collections.abc import Iterator

import pytest
from hub import connected_hub
from hub_state import OWNER, READER, WRITER, Hub

from qa_ray.config.operation import PublishConfig
from qa_ray.doctor.hub import publication
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
