"""Whether MLflow will take the run's record; only the driver talks to it."""

import os
import re
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qa_ray.config.operation import TrackingConfig
from qa_ray.doctor.verdict import Verdict, failed, passed, share, skipped, warning
from qa_ray.errors import ClusterError
from qa_ray.locations import without_password

_PORTS = {"http": 80, "https": 443}
_TIMEOUT_S = 10
_SQLITE = "sqlite:///"
_DENIED = re.compile(r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED", re.IGNORECASE)


def record(config: TrackingConfig) -> Verdict:
    """Look up the experiment, as the run will; nothing is made."""
    if not config.enabled:
        return skipped("tracking.enabled is false")
    uri = config.store
    file = uri.removeprefix(_SQLITE) if uri.startswith(_SQLITE) else None
    if file is not None and not _writable(Path(file)):
        return failed(f"{file} cannot be written", "name another file or a server with --tracking.uri")
    if file is not None and not os.path.exists(file):
        return passed(f"{file} will be made")
    # Here: it takes seconds to import, and every node imports this module.
    from mlflow import MlflowClient

    from qa_ray.tracking.mlflow_queue import bound_requests, reason

    bound_requests()
    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(config.experiment)
        if config.registered_model:
            client.search_model_versions(f"name = '{config.registered_model}'", max_results=1)
    # MLflow's stores let through whatever their databases raise.
    except Exception as error:
        return failed(f"{without_password(uri)} does not answer as it should: {reason(error)}", _cure(str(error)))
    return _experiment(uri, config.experiment, found)


def _experiment(uri: str, name: str, found: Any) -> Verdict:
    if found is None:
        return passed(f"{without_password(uri)} answers; the experiment {name} will be made")
    if found.lifecycle_stage != "active":
        return failed(
            f"the experiment {name} at {without_password(uri)} is deleted",
            f"name another one with --tracking.experiment, or: mlflow experiments restore -x {found.experiment_id}",
        )
    return passed(f"{without_password(uri)} answers and has the experiment {name}")


def _cure(error: str) -> str:
    if _DENIED.search(error):
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, on the driver"
    return "start the server, name another one with --tracking.uri, or pass --tracking.no-enabled"


def _writable(file: Path) -> bool:
    """Whether a database can be written or made there, with its journal beside it."""
    folder = file.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        # A disk may be full, or read-only for all that its permissions say; this file has no name and leaves no trace.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return not file.exists() or os.access(file, os.W_OK)


def is_server(config: TrackingConfig) -> bool:
    """Whether the record goes to a server that other nodes could reach."""
    return config.enabled and urlsplit(config.store).scheme in _PORTS


def reach(uri: str) -> None:
    """Connect to the server's port.

    Raises:
        ClusterError: nothing answers there.
    """
    parts = urlsplit(uri)
    try:
        socket.create_connection((parts.hostname or "", parts.port or _PORTS[parts.scheme]), _TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(f"{parts.hostname} cannot be reached: {error.strerror or error}") from error


def reached(num_nodes: int, failures: Mapping[str, str]) -> Verdict:
    """Say which nodes cannot reach the server."""
    if not failures:
        return passed(f"the server can be reached from {num_nodes} nodes")
    return warning(
        f"the server cannot be reached from {share(list(failures))}: {next(iter(failures.values()))}",
        "no matter for this run, whose driver alone sends the record; other code on those nodes cannot log there",
    )
