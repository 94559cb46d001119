"""Whether the token may write where the model is to be published; nothing is made on the Hub."""

from typing import Any

from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError

from qa_ray.config.operation import PublishConfig
from qa_ray.doctor.verdict import Verdict, failed, passed, skipped, warning
from qa_ray.publishing.hub import HubRepository

_WRITING_ROLES = frozenset({"write", "admin"})
# The repository has been read with the same token: it is there, and the token is valid.
_HIDDEN = frozenset({401, 403, 404})
_CURE_ROLE = "make a token that may write at https://huggingface.co/settings/tokens, and set HF_TOKEN or log in"


def publication(config: PublishConfig) -> Verdict:
    """Find out whether the model could be published at the end of the run."""
    if config.repo_id is None:
        return skipped("publish.repo_id is not set")
    token = get_token()
    if token is None:
        return failed(
            f"publish.repo_id={config.repo_id}, but there is no token for the Hub",
            "set HF_TOKEN in the environment, or run: hf auth login",
        )
    return _Access(config.repo_id, token).verdict(private=config.private)


class _Access(HubRepository):
    """A repository whose doors are tried."""

    def verdict(self, *, private: bool) -> Verdict:
        """Try what may be done without doing it.

        Raises:
            PublishError: the Hub cannot be reached, or refuses the token.
        """
        account = self._do("look up whose the token is", self._api.whoami)
        info = self._find()
        if info is None:
            return self._new(account)
        if private and not info.private:
            return failed(
                f"{self.repo_id} is there and public, and a private one was asked for",
                "add --publish.no-private to publish to everybody, or choose another --publish.repo-id",
            )
        if not self._may_write():
            return failed(f"the token of {account['name']} may not write to {self.repo_id}", _CURE_ROLE)
        kept = "private" if info.private else "public"
        return passed(f"{self.repo_id} is there, {kept}, and the token of {account['name']} may write to it")

    def _may_write(self) -> bool:
        def look() -> bool:
            try:
                self._api.auth_check(self.repo_id, write=True)
            except HfHubHTTPError as error:
                if error.response.status_code in _HIDDEN:
                    return False
                raise
            return True

        return self._do(f"ask who may write to {self.repo_id}", look)

    def _new(self, account: dict[str, Any]) -> Verdict:
        """What the token may do, by what the Hub says of it: only making the repository would prove it."""
        owner = self.repo_id.partition("/")[0]
        names = {account["name"], *(one.get("name") for one in account.get("orgs", ()))}
        if owner not in names:
            return failed(
                f"{self.repo_id} is not there, and the token is {account['name']}'s, who is no member of {owner}",
                f"choose --publish.repo-id {account['name']}/NAME, or use a token of {owner}",
            )
        may = _may_create(account.get("auth", {}).get("accessToken") or {}, owner)
        if may is None:
            return warning(
                f"{self.repo_id} will be made; whether the token may, the Hub does not say", "see its page of tokens"
            )
        if not may:
            return failed(f"the token of {account['name']} may only read", _CURE_ROLE)
        return passed(f"{self.repo_id} will be made; the token of {account['name']} may write")


def _may_create(token: dict[str, Any], owner: str) -> bool | None:
    """Whether a token may make repositories of an owner; None where that is not told."""
    role = token.get("role")
    if role is None:
        return None
    if role != "fineGrained":
        return role in _WRITING_ROLES
    scopes = token.get("fineGrained", {}).get("scoped", ())
    own = [scope.get("permissions", ()) for scope in scopes if scope.get("entity", {}).get("name") == owner]
    return any("repo.write" in permissions for permissions in own)
