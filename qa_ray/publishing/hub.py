"""A model repository on the Hugging Face Hub: made, written and checked, through failures that pass.

huggingface_hub itself repeats five times the requests that ask how files are to be uploaded and that upload them. What
it does once is repeated here: making repository, branch and tag, reading, and, without Xet, the commit.
"""

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha1, sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitInfo, HfApi, ModelCard
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoFile
from huggingface_hub.utils import (
    get_session,
    hf_raise_for_status,
    httpx,  # httpx itself or httpx2, by huggingface_hub's version
)

from qa_ray.errors import PublishError
from qa_ray.locations import without_secrets

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAIN = "main"
"""Name of a repository's first branch."""

# 412: the branch has moved since it was looked at, by somebody else or by a commit whose answer was lost.
_PASSING = frozenset({408, 412, 500, 502, 503, 504})
_PARAMETERS = re.compile(r"\?[^\s'\"]+=[^\s'\"]+")  # signatures of upload addresses, by many names
_LONGEST_REASON = 300
# These would be loaded instead of, or beside, what is pushed.
_OF_A_MODEL = re.compile(r"[^/]+\.(safetensors|bin|h5|msgpack|index\.json)|(added_tokens|special_tokens_map)\.json")
# They name the addresses of requests, signatures and all.
_TALKATIVE = ("huggingface_hub.utils._http", httpx.__name__)


def scrub(text: str, token: str) -> str:
    """Take the token, and whatever else looks like a credential, out of a text."""
    return _PARAMETERS.sub("?***", without_secrets(text.replace(token, "***")))


class HubRepository:
    """A model repository; every failure is a PublishError of one line, without secrets."""

    def __init__(self, repo_id: str, token: str, pauses: Sequence[float] = (1.0, 5.0)) -> None:
        """Name a repository: USER/NAME, or NAME for one of the token's owner, who is looked up.

        What fails is tried again after `pauses`, in seconds.
        """
        self._api = HfApi(token=token)
        self._token = token
        self._pauses = pauses
        self.repo_id = repo_id
        if "/" not in repo_id:
            self.repo_id = f"{self.look_up_account()['name']}/{repo_id}"

    def look_up_account(self) -> dict[str, Any]:
        """What the Hub tells of the token and its owner, under `name`, `orgs` and `auth`."""
        return self._do("look up whose the token is", self._api.whoami)

    def check_card(self, card: ModelCard) -> None:
        """Have the Hub look at the card, before anything is made."""

        def look() -> None:
            # card.validate() asks huggingface.co, whatever the endpoint, before huggingface_hub 2.2.
            body = {"repoType": "model", "content": str(card)}
            response = get_session().post(f"{self._api.endpoint}/api/validate-yaml", json=body)
            try:
                hf_raise_for_status(response)
            except BadRequestError:
                reason = _shown(ValueError(response.text), self._token)
                raise PublishError(f"the Hub refuses the model card; look at --license. Reason: {reason}") from None

        self._do("check the model card", look)

    def find(self) -> ModelInfo | None:
        """What the Hub tells of the repository; None if there is none that the token may see."""

        def look() -> ModelInfo | None:
            try:
                return self._api.model_info(self.repo_id)
            except RepositoryNotFoundError:
                return None

        return self._do(f"read {self.repo_id}", look)

    def may_write(self) -> bool:
        """Whether the token may write to the repository, which it has found."""

        def look() -> bool:
            try:
                self._api.auth_check(self.repo_id, write=True)
            except HfHubHTTPError as error:
                # The token is valid, and the repository is there.
                if error.response.status_code in (401, 403, 404):
                    return False
                raise
            return True

        return self._do(f"ask who may write to {self.repo_id}", look)

    def make(self, *, private: bool, branch: str) -> None:
        """Make repository and branch, where they are not there.

        Raises:
            PublishError: the repository is there and public, though a private one was asked for, or is no model.
        """
        info = self.find()
        if info is None:
            self._do(f"make {self.repo_id}", lambda: self._create(private))
        elif private and not info.private:
            raise PublishError(
                f"{self.repo_id} is there and public, and a private one was asked for: add --no-private to publish the "
                "model to everybody, choose another --repo-id, or make the repository private in its settings"
            )
        elif info.private and not private:
            logger.info("%s stays private, as it is: its settings on the Hub change that", self.repo_id)
        if branch != MAIN:
            self._do(
                f"make the branch {branch} of {self.repo_id}",
                lambda: self._api.create_branch(self.repo_id, branch=branch, exist_ok=True),
            )

    def push(self, folder: Path, branch: str, message: str) -> CommitInfo:
        """Commit a folder, in place of the model that was there; no commit is made where nothing has changed.

        Raises:
            PublishError: it cannot be uploaded, or the Hub holds something else than was sent.
        """
        commit: CommitInfo = self._do(f"upload to {self.repo_id}", lambda: self._upload(folder, branch, message))
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        held = self._do(
            f"read {self.repo_id}", lambda: self._api.get_paths_info(self.repo_id, names, revision=commit.oid)
        )
        ids = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in held if isinstance(file, RepoFile)}
        differing = [name for name in names if ids.get(name) not in _ids(folder / name)]
        if differing:
            raise PublishError(
                f"{self.repo_id} does not hold what was sent: {', '.join(differing)} differ at {commit.commit_url}. "
                "Delete these files there, or choose another --repo-id, and publish again"
            )
        return commit

    def tag(self, tag: str, commit: CommitInfo) -> None:
        """Tag a commit.

        Raises:
            PublishError: the tag stands at another commit.
        """
        self._do(
            f"tag {self.repo_id} as {tag}",
            lambda: self._api.create_tag(self.repo_id, tag=tag, revision=commit.oid, exist_ok=True),
        )
        refs = self._do(f"read {self.repo_id}", lambda: self._api.list_repo_refs(self.repo_id))
        if {ref.target_commit for ref in refs.tags if ref.name == tag} != {commit.oid}:
            raise PublishError(
                f"the model is at {commit.commit_url}, but the tag {tag} of {self.repo_id} stands at another commit: "
                "choose another --tag, or delete that one on the Hub"
            )

    def _create(self, private: bool) -> None:
        try:
            self._api.create_repo(self.repo_id, private=private)
        except HfHubHTTPError as error:
            if error.response.status_code != HTTPStatus.CONFLICT:
                raise
            # It is there now if an earlier attempt made it and the answer was lost.
            if self.find() is None:
                raise PublishError(
                    f"{self.repo_id} is taken, and is no model repository that this token can see (it may be a data "
                    "set or a Space): choose another --repo-id"
                ) from None

    def _upload(self, folder: Path, branch: str, message: str) -> CommitInfo:
        now = self._api.model_info(self.repo_id, revision=branch)
        stale = [file.rfilename for file in now.siblings or [] if _OF_A_MODEL.fullmatch(file.rfilename)]
        return self._api.upload_folder(
            repo_id=self.repo_id,
            folder_path=folder,
            revision=branch,
            commit_message=message,
            # Of these, the ones that are uploaded are not deleted.
            delete_patterns=stale or None,
            # A commit whose answer was lost is not made again.
            parent_commit=now.sha,
        )

    def _do(self, what: str, action: Callable[[], T]) -> T:
        """Do something on the Hub, and again after a failure that passes."""
        with _scrubbed_log(self._token):
            for seconds in (*self._pauses, None):
                try:
                    return action()
                except PublishError:
                    raise
                # The Hub's clients raise errors of several packages, whose texts may name addresses with signatures.
                except Exception as error:
                    told = self._explain(what, _root(error))
                    if seconds is None or not _passes(_root(error)):
                        raise told from None
                logger.info("%s. Trying again in %g s", told, seconds)
                time.sleep(seconds)
        raise AssertionError("the last attempt returns or raises")

    def _explain(self, what: str, error: Exception) -> PublishError:
        if isinstance(error, OfflineModeIsEnabled):
            cure = "unset HF_HUB_OFFLINE, which forbids every request"
        elif isinstance(error, HfHubHTTPError):
            cure = self._cure(error.response)
        elif isinstance(error, httpx.TransportError | ConnectionError | TimeoutError):
            cure = f"look whether {self._api.endpoint} can be reached from here (network, proxy, HF_ENDPOINT)"
        else:
            cure = "see the reason"
        return PublishError(f"cannot {what} on the Hub: {cure}. Reason: {_shown(error, self._token)}")

    def _cure(self, response: httpx.Response) -> str:
        owner, pages = self.repo_id.partition("/")[0], f"{self._api.endpoint}/settings/tokens"
        status = response.status_code
        if status == HTTPStatus.UNAUTHORIZED:
            return f"the token is not valid (401); make one that may write at {pages}, then set HF_TOKEN or log in"
        if status == HTTPStatus.FORBIDDEN:
            return f"the token may not write there (403); give it write access to {owner} at {pages}"
        if status == HTTPStatus.NOT_FOUND:
            return f"there is no such place (404); check --repo-id and that the token may see {owner}"
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            wait = response.headers.get("Retry-After")
            return f"there were too many requests (429); try again {f'in {wait} s' if wait else 'in an hour'}"
        if status in _PASSING:
            return f"the Hub has a fault ({status}); try again later"
        return f"the Hub refuses it ({status})"


def _root(error: Exception) -> Exception:
    """What went wrong; huggingface_hub tells of a large file's failure by a RuntimeError around it."""
    cause = error.__cause__
    return _root(cause) if isinstance(error, RuntimeError) and isinstance(cause, Exception) else error


def _shown(error: Exception, token: str) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return scrub(reason, token)[:_LONGEST_REASON].rstrip(".")


def _passes(error: Exception) -> bool:
    """Whether the same request may well succeed a little later."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _PASSING
    # A proxy's error page is no JSON.
    return isinstance(error, httpx.TransportError | ConnectionError | TimeoutError | json.JSONDecodeError)


def _ids(path: Path) -> tuple[str, str]:
    """A file's id as a git blob, and as a large file: its SHA-256."""
    blob, large = sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False), sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            blob.update(part)
            large.update(part)
    return blob.hexdigest(), large.hexdigest()


@contextlib.contextmanager
def _scrubbed_log(token: str) -> Iterator[None]:
    def cover(record: logging.LogRecord) -> bool:
        record.msg, record.args = scrub(record.getMessage(), token), ()
        return True

    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(cover)
    try:
        yield
    finally:
        for name in _TALKATIVE:
            logging.getLogger(name).removeFilter(cover)
