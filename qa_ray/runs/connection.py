"""The Ray cluster that this process works on: the one that is named, or a new local one."""

import logging
import os
import socket

import ray

from qa_ray.config.operation import ClusterConfig
from qa_ray.errors import ClusterError

# Ray's own processes run on the cores that train. On one machine without a dashboard nobody reads Ray's metrics, no
# worker's log is forwarded (so none need be looked for), and no cloud takes the node away.
_LOCAL_ENVIRONMENT = {
    "RAY_enable_metrics_collection": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",  # from so many files on, new ones are sought at the next interval
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_DATA_USAGE_DISABLED": "1",  # a thread of the driver that asks a Prometheus
    # Nothing answers there: Ray Train would look for a dashboard for 40 s, and a shorter run would wait at its end.
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1",
}


def start_ray(config: ClusterConfig) -> None:
    """Join the cluster that `config` or RAY_ADDRESS names, or start a local one.

    Raises:
        ClusterError: there is no cluster at the address.
    """
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        for name, value in _LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Without an address ray.init would join a cluster that happens to run on this machine.
        cores = config.local_cpus or len(os.sched_getaffinity(0))  # Ray counts those of other containers too
        where = {"address": "local", "num_cpus": cores, "include_dashboard": False}
    else:
        _require_reachable(address)
        where = {"address": address}
    try:
        # The workers' own messages come through the metric stream, beside the progress bar.
        ray.init(**where, log_to_driver=False, logging_level=logging.WARNING)
    # RuntimeError: the cluster has another version of Ray or Python.
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"cluster.address={address}: {' '.join(str(error).split())}") from error


def _require_reachable(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # a word such as auto
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ClusterError(
            f"cluster.address={address}: nothing answers there ({error.strerror or error}): give the address that "
            "`ray start --head` printed, or none for a local cluster"
        ) from error
