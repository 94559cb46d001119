"""Where a run's results go: its storage, with room for checkpoints, MLflow and the Hub."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import get_token
from pyarrow import fs

from qa_ray.config.operation import PublishConfig, TrackingConfig
from qa_ray.doctor.nodes import DRIVER, Nodes
from qa_ray.doctor.verdict import Verdict, failed, passed, share, size, skipped, told, warning
from qa_ray.locations import is_local, without_secrets
from qa_ray.publishing.hub import HubRepository
from qa_ray.storage.run_folder import RunFolder

_CURE = (
    "name storage that every node may write and read (--run.storage-path), such as s3://BUCKET/runs or a network file "
    "system that is mounted alike everywhere"
)
# fp32 weights, and Adam's two running means of each.
_BYTES_PER_WEIGHT = 12


def same_storage(nodes: Nodes, storage_path: str) -> Verdict:
    """Have every place write a file into a new folder; the driver looks for all of them, the nodes for the driver's."""
    probe = RunFolder(storage_path, f".qa_ray-doctor-{uuid.uuid4().hex}")
    files = {name: str(number) for number, name in enumerate([DRIVER, *(node.name for node in nodes.all)])}
    absent = nodes.ask(absent_folders, probe, driver=True)
    if absent.failures:
        return failed(told(absent.failures), _CURE)
    try:
        writes = nodes.ask_each(RunFolder.write, {name: (probe, file, b"seen") for name, file in files.items()})
        reads = nodes.ask(RunFolder.read, probe, files[DRIVER])
        listing = nodes.ask_each(names, {DRIVER: (probe,)})
    finally:
        # The driver first: where it deletes for all, the others have nothing to list.
        places = {name: (probe, folders) for name, folders in absent.values.items()}
        own = nodes.ask_each(delete, {DRIVER: places.pop(DRIVER)})
        others = nodes.ask_each(delete, places)
    failures = writes.failures or {**reads.failures, **listing.failures} or {**own.failures, **others.failures}
    if failures:
        return failed(told(failures), _CURE)
    apart = [name for name, seen in reads.values.items() if seen is None or files[name] not in listing.values[DRIVER]]
    if apart:
        return failed(f"{storage_path} is not the same on {share(apart)} as on the driver", _CURE)
    return passed(f"{storage_path} is the same everywhere, and can be written")


def absent_folders(probe: RunFolder) -> tuple[str, ...]:
    """Local folders above the probe that this place has not, the innermost first; none on other storage."""
    filesystem, path = probe.filesystem()
    if not isinstance(filesystem, fs.LocalFileSystem):
        return ()
    return tuple(str(parent) for parent in Path(path).parents if not parent.exists())


def names(probe: RunFolder) -> set[str]:
    """Names of the probe's files.

    Raises:
        StorageError: the storage cannot be read.
    """
    filesystem, path = probe.filesystem()
    with probe.guard("read"):
        return {info.base_name for info in filesystem.get_file_info(fs.FileSelector(path))}


def delete(probe: RunFolder, absent: tuple[str, ...]) -> None:
    """Delete the probe, and the folders that it was the first to need."""
    probe.remove()
    for folder in absent:
        # Not empty: a run has begun there meanwhile.
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def free_space(location: str) -> int | None:
    """Bytes free on the disk of a path, which need not be there yet; None for a URI: a store has no end."""
    if not is_local(location):
        return None
    place = Path(location)
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def temporary() -> tuple[str, int]:
    """The folder for temporary files, where a checkpoint stands until it is stored, and the bytes free in it."""
    folder = tempfile.gettempdir()
    return folder, shutil.disk_usage(folder).free


def enough_space(free: int | None, found: Mapping[str, tuple[str, int]], num_weights: int, keep: int) -> Verdict:
    """Compare the free space of the storage, and that for temporary files by node, with a run's checkpoints.

    Args:
        free: bytes in the storage, if that is known.
        found: the folder for temporary files and the bytes free in it.
        num_weights: of the model.
        keep: checkpoints that the run keeps.
    """
    checkpoint = _BYTES_PER_WEIGHT * num_weights
    # The newest ones, the best one, one on its way, and at last the model alone.
    need = (keep + 2) * checkpoint + checkpoint // 3
    estimate = f"a checkpoint takes {size(checkpoint)}, the run {size(need)}"
    if free is not None and free < need:
        cure = "make room there, name other storage (--run.storage-path), or keep fewer checkpoints (--checkpoint.keep)"
        return failed(f"{estimate}; only {size(free)} are free in run.storage_path", cure)
    # One is written there while the one before it is on its way.
    least = 2 * checkpoint
    short = {name: f"{size(left)} are free in {folder}" for name, (folder, left) in found.items() if left < least}
    if short:
        cure = "checkpoints are written there first: make room, or set TMPDIR to a larger disk before `ray start`"
        return failed(f"{estimate}; {told(short)}", cure)
    rest = "how much is free is not known" if free is None else f"{size(free)} are free"
    return passed(f"{estimate}; {rest}")


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
    shown = without_secrets(uri)
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
