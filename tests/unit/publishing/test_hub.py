"""A repository on a Hub of our own, over HTTP, with huggingface_hub's own client; and failures of all kinds."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import connected_hub
from hub_state import CUT, LOST, OK, READER, SIGNATURE, WRITER, Hub
from huggingface_hub import HfApi, ModelCard, constants

from qa_ray.errors import PublishError
from qa_ray.publishing.hub import HubRepository, scrub

ID = "somebody/tiny"
CARD = ModelCard("---\nlicense: mit\n---\n\n# tiny\n")
SENT = {"README.md": b"# tiny", "config.json": b"{}", "model.safetensors": b"weights" * 40_000}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with connected_hub(monkeypatch) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in SENT.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def publish(
    folder: Path, repo_id: str = ID, *, token: str = WRITER, private: bool = True, branch: str = "main", tag: str = ""
) -> str:
    """All that is done for a model, in its order."""
    repository = HubRepository(repo_id, token, pauses=(0.0, 0.0))
    repository.check_card(CARD)
    repository.make(private=private, branch=branch)
    commit = repository.push(folder, branch, "a model")
    if tag:
        repository.tag(tag, commit)
    return str(commit.commit_url)


def refusal(folder: Path, repo_id: str = ID, *, token: str = WRITER, tag: str = "") -> str:
    """The message of the error that it ends with: one line without secrets, and no cause that names them."""
    with pytest.raises(PublishError) as caught:
        publish(folder, repo_id, token=token, tag=tag)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(secret in message for secret in (WRITER, READER, SIGNATURE))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def files(hub: Hub, revision: str = "main") -> dict[str, bytes]:
    commit = hub.repos[ID].at(revision)
    assert commit is not None
    return {name: content for name, content in commit.files.items() if name != ".gitattributes"}


def num_commits(hub: Hub, branch: str = "main") -> int:
    return len(hub.repos[ID].branches[branch]) - 1  # the first one is the repository's own


def test_private_repository_takes_the_files_in_one_commit(hub: Hub, folder: Path) -> None:
    url = publish(folder)
    head = hub.repos[ID].branches["main"][-1]
    assert hub.repos[ID].private
    assert files(hub) == SENT
    assert (url, head.message) == (f"{hub.endpoint}/{ID}/commit/{head.oid}", "a model")
    assert num_commits(hub) == 1


def test_token_goes_to_the_hub_and_not_to_the_store_of_large_files(hub: Hub, folder: Path) -> None:
    publish(folder, tag="v1")
    tokens = {route: token for route, token in hub.requests if route != "validate"}
    assert tokens.pop("put") is None
    assert set(tokens.values()) == {f"Bearer {WRITER}"}


def test_name_alone_stands_for_a_repository_of_the_tokens_owner(hub: Hub, folder: Path) -> None:
    publish(folder, "tiny", private=False)
    assert not hub.repos[ID].private


def test_same_files_again_make_no_commit(hub: Hub, folder: Path) -> None:
    assert publish(folder) == publish(folder)
    assert num_commits(hub) == 1
    assert hub.count("put") == 1


def test_model_takes_the_place_of_the_one_that_was_there(hub: Hub, folder: Path) -> None:
    old = dict.fromkeys(["model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"], b"")
    kept = dict.fromkeys(["LICENSE.txt", "onnx/model.bin", "figure.png"], b"kept")
    hub.add_repo(ID).add("main", "an older model", old | kept | {"model.safetensors": b"old"})
    publish(folder)
    assert files(hub) == SENT | kept


def test_branch_and_tag_are_made_and_main_is_left_alone(hub: Hub, folder: Path) -> None:
    for _ in range(2):  # the second time branch and tag are there
        publish(folder, branch="trial", tag="v1")
    repo = hub.repos[ID]
    assert (num_commits(hub), num_commits(hub, "trial")) == (0, 1)
    assert repo.tags == {"v1": repo.branches["trial"][-1].oid}


def test_tag_of_another_commit_is_not_taken_for_this_ones(hub: Hub, folder: Path) -> None:
    repo = hub.add_repo(ID)
    repo.tags["v1"] = repo.branches["main"][-1].oid
    message = refusal(folder, tag="v1")
    assert f"the model is at {hub.endpoint}/{ID}/commit/" in message
    assert "the tag v1 of somebody/tiny stands at another commit" in message


def test_private_model_is_not_pushed_to_a_public_repository(hub: Hub, folder: Path) -> None:
    hub.add_repo(ID, private=False)
    assert "somebody/tiny is there and public" in refusal(folder)
    assert num_commits(hub) == 0
    publish(folder, private=False)
    assert num_commits(hub) == 1


@pytest.mark.parametrize(
    ("route", "failure"),
    [
        ("whoami", 503), ("validate", 500), ("info", 503), ("create", 503), ("create", LOST), ("branch", 503),
        ("preupload", 503), ("batch", 500), ("put", 503), ("put", CUT), ("put", LOST), ("verify", 500),
        ("commit", 503), ("commit", CUT), ("commit", LOST), ("paths-info", 503), ("tag", LOST), ("refs", CUT),
    ],
)  # fmt: skip
def test_failure_that_passes_is_gone_through_with_a_single_commit(
    hub: Hub, folder: Path, route: str, failure: int | str
) -> None:
    hub.fail(route, failure)
    publish(folder, "tiny", branch="trial", tag="v1")
    assert not hub.failures[route]
    assert files(hub, "v1") == SENT
    assert num_commits(hub, "trial") == 1


def test_error_page_in_place_of_json_is_a_failure_that_passes(hub: Hub, folder: Path) -> None:
    hub.fail("validate", OK, 503)  # the second time huggingface_hub asks itself, and reads the answer first
    publish(folder)
    assert num_commits(hub) == 1


def test_commit_of_somebody_else_meanwhile_is_kept(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo, upload = hub.add_repo(ID), HfApi.upload_folder

    def upload_late(self: HfApi, **arguments: object) -> object:
        if num_commits(hub) == 0:
            repo.add("main", "somebody else's", {"figure.png": b"new", "pytorch_model.bin": b"new"})
        return upload(self, **arguments)

    monkeypatch.setattr(HfApi, "upload_folder", upload_late)
    publish(folder)
    assert files(hub) == SENT | {"figure.png": b"new"}


@pytest.mark.parametrize(
    ("route", "failure", "message"),
    [
        ("commit", 503, "cannot upload to somebody/tiny on the Hub: the Hub has a fault (503); try again later"),
        ("info", CUT, "can be reached from here (network, proxy, HF_ENDPOINT)"),
        ("create", 429, "there were too many requests (429); try again in an hour"),
        ("preupload", 404, "there is no such place (404)"),
        ("batch", 403, "the token may not write there (403); give it write access to somebody"),
        ("put", 400, "the Hub refuses it (400)"),
    ],
)
def test_failure_that_stays_is_told_after_few_attempts(
    hub: Hub, folder: Path, route: str, failure: int | str, message: str
) -> None:
    hub.fail(route, *[failure] * 99)
    assert message in refusal(folder)
    assert hub.count(route) <= 3
    hub.failures.clear()
    publish(folder)
    assert num_commits(hub) == 1


def test_store_that_stays_away_is_told_after_bounded_attempts_without_its_signed_address(
    hub: Hub, folder: Path
) -> None:
    hub.fail("put", *[503] * 99)
    message = refusal(folder)
    assert "the Hub has a fault (503)" in message
    assert "/large/" in message
    assert hub.count("put") == 3 * 6  # huggingface_hub's own six attempts, three times
    assert num_commits(hub) == 0


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        ("hf_unknownunknownunknown", ID, "the token is not valid (401); make one that may write at"),
        ("hf_unknownunknownunknown", "tiny", "cannot look up whose the token is on the Hub: the token is not valid"),
        (READER, ID, "the token may not write there (403); give it write access to somebody"),
        (WRITER, "another/tiny", "the token may not write there (403); give it write access to another"),
        (WRITER, "somebody/data", "somebody/data is taken, and is no model repository"),
    ],
)
def test_refusal_says_what_to_do(hub: Hub, folder: Path, token: str, repo_id: str, message: str) -> None:
    hub.add_repo("somebody/data", kind="dataset")
    assert message in refusal(folder, repo_id, token=token)


def test_hub_that_cannot_be_reached_is_named(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "look whether http://127.0.0.1:1 can be reached" in refusal(folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in refusal(folder)


def test_hub_that_holds_something_else_is_found_out(hub: Hub, folder: Path) -> None:
    hub.garbled |= {"model.safetensors", "config.json"}
    assert "does not hold what was sent: config.json, model.safetensors differ" in refusal(folder)


def test_log_tells_of_further_attempts_without_token_and_signature(
    hub: Hub, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # huggingface_hub keeps its log to itself otherwise.
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    hub.fail("put", 503, CUT)
    hub.fail("create", 500)
    publish(folder)
    assert f"PUT {hub.endpoint}/large/" in caplog.text
    assert "cannot make somebody/tiny on the Hub: the Hub has a fault (500)" in caplog.text
    assert not re.search(f"{WRITER}|{SIGNATURE}", caplog.text)


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("my own token", "my own ***"),
        ("another: hf_abcdefghijklmnopqrst.", "another: ***."),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("at https://me:pw@host/path", "at https://host/path"),
        ("PUT http://store/large/1?X-Amz-Signature=1&x=2 failed", "PUT http://store/large/1?*** failed"),
        ("why? it is 1 = 1", "why? it is 1 = 1"),
    ],
)
def test_what_looks_like_a_credential_is_taken_out_of_a_text(text: str, scrubbed: str) -> None:
    assert scrub(text, "token") == scrubbed
