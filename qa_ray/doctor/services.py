"""Whether MLflow will take the run's record and the Hub its model; only the driver talks to them, and makes nothing."""

import os
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from qa_ray.config.operation import PublishConfig, TrackingConfig
from qa_ray.doctor.verdict import Verdict, failed, passed, skipped, warning
from qa_ray.locations import without_password
from qa_ray.publishing.hub import HubRepository

_SQLITE = "sqlite:///"
_SERVER_CURE = (
    "start the server, give its login on the driver (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
    "MLFLOW_TRACKING_TOKEN), name another one with --tracking.uri, or pass --tracking.no-enabled"
)
_ROLE_CURE = "make a token that may write at https://huggingface.co/settings/tokens, and set HF_TOKEN or log in"


def tracking(config: TrackingConfig) -> Verdict:
    """Look up the experiment, as the run will."""
    if not config.enabled:
        return skipped("tracking.enabled is false")
    uri, name = config.store, config.experiment
    shown = without_password(uri)
    if uri.startswith(_SQLITE):
        file = Path(uri.removeprefix(_SQLITE))
        if not _writable(file):
            return failed(f"{file} cannot be written", "name another file or a server with --tracking.uri")
        if not file.exists():
            return passed(f"{file} will be made")
    # Here: it takes seconds to import.
    from mlflow import MlflowClient

    from qa_ray.tracking.mlflow_queue import bound_requests, reason

    bound_requests()
    try:
        found = MlflowClient(tracking_uri=uri).get_experiment_by_name(name)
    # MLflow's stores let through whatever their databases raise.
    except Exception as error:
        return failed(f"{shown} does not answer as it should: {reason(error)}", _SERVER_CURE)
    if found is None:
        return passed(f"{shown} answers; the experiment {name} will be made")
    if found.lifecycle_stage != "active":
        cure = f"name another one with --tracking.experiment, or: mlflow experiments restore -x {found.experiment_id}"
        return failed(f"the experiment {name} at {shown} is deleted", cure)
    return passed(f"{shown} answers and has the experiment {name}")


def _writable(file: Path) -> bool:
    """Whether a database can be written or made there, with its journal beside it."""
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    try:
        # A disk may be full, or read-only for all that its permissions say; this file has no name and leaves no trace.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return not file.exists() or os.access(file, os.W_OK)


def publication(config: PublishConfig) -> Verdict:
    """Find out whether the model could be published at the end of the run.

    Raises:
        PublishError: the Hub cannot be reached, or refuses the token.
    """
    if config.repo_id is None:
        return skipped("publish.repo_id is not set")
    token = get_token()
    if token is None:
        cure = "set HF_TOKEN in the environment, or run: hf auth login"
        return failed(f"publish.repo_id={config.repo_id}, but there is no token for the Hub", cure)
    repository = HubRepository(config.repo_id, token)
    account = repository.look_up_account()
    info, name = repository.find(), repository.repo_id
    if info is None:
        return _new_repository(name, account)
    if config.private and not info.private:
        cure = "add --publish.no-private to publish to everybody, or choose another --publish.repo-id"
        return failed(f"{name} is there and public, and a private one was asked for", cure)
    if not repository.may_write():
        return failed(f"the token of {account['name']} may not write to {name}", _ROLE_CURE)
    kept = "private" if info.private else "public"
    return passed(f"{name} is there, {kept}, and the token of {account['name']} may write to it")


def _new_repository(name: str, account: dict[str, Any]) -> Verdict:
    """What the token may do, by what the Hub says of it: only making the repository would prove it."""
    owner, user = name.partition("/")[0], account["name"]
    if owner not in {user, *(one.get("name") for one in account.get("orgs", ()))}:
        cure = f"choose --publish.repo-id {user}/NAME, or use a token of {owner}"
        return failed(f"{name} is not there, and the token is {user}'s, who is no member of {owner}", cure)
    token = account.get("auth", {}).get("accessToken") or {}
    role = token.get("role")
    if role is None:
        return warning(f"{name} will be made; whether the token may, the Hub does not say", "see its page of tokens")
    scopes = token.get("fineGrained", {}).get("scoped", ())
    scoped = [one.get("permissions", ()) for one in scopes if one.get("entity", {}).get("name") == owner]
    if role in ("write", "admin") or (role == "fineGrained" and any("repo.write" in one for one in scoped)):
        return passed(f"{name} will be made; the token of {user} may write")
    return failed(f"the token of {user} may only read", _ROLE_CURE)
