"""A cluster of several Ray nodes on this machine, which outlives the jobs on it and loses nodes without a warning."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from unittest import mock

import psutil
from ray.cluster_utils import Cluster

# Ray's own settings would notice a lost node after half a minute.
_SYSTEM = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
    # Even this little data must be in the nodes' object stores, as large data is, and be lost with them.
    "max_direct_call_object_size": 1000,
}
_STORE = {"object_store_memory": 100 * 2**20}
# What has happened to workers is looked for often; and a dashboard is looked for in vain at once.
_SETTINGS = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}


@contextlib.contextmanager
def start_nodes() -> Iterator[tuple[Path, "Nodes"]]:
    """A temporary folder, and nodes that have their files there, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        (place / "tmp").mkdir()
        # For the cluster and its jobs; the paths of Ray's sockets must be short.
        settings = _SETTINGS | {"TMPDIR": str(place / "tmp"), "RAY_TMPDIR": folder}
        with mock.patch.dict(os.environ, settings), Nodes(place) as nodes:
            yield place, nodes


class Nodes:
    """A head without CPUs, and two nodes with room for one worker each; driven from the main thread alone."""

    def __init__(self, place: Path) -> None:
        """Start them with their files in `place`, to which RAY_TMPDIR points."""
        self._place = str(place)
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": _SYSTEM, **_STORE}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: list[Any] = []
        self.fill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # Jobs too, and at once: nodes would take half a minute to take their leave. Some of their children cannot be
        # told by their environment, over which they have written their title.
        found = self.processes()
        _kill([*found, *(child for process in found for child in _children(process))])
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def __len__(self) -> int:
        return len(self._nodes)

    def workers(self) -> list[psutil.Process]:
        """The processes that train."""
        return self.processes("RayTrainWo")

    def kill(self, number: int, *, replace: bool = True) -> None:
        """Lose a node and all that runs on it at once, and put a new one in its place if it is to be replaced."""
        node = self._nodes.pop(number)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        _kill([raylet, *raylet.children(recursive=True)])
        self._cluster.remove_node(node, allow_graceful=False)
        if replace:
            self.fill()

    def fill(self) -> None:
        """Add nodes until there are two."""
        while len(self) < 2:
            self._nodes.append(self._add())

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Processes of this cluster and its jobs, and of no other on the machine, with `title` in their names."""
        found = []
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                named = title in process.info["name"] and process.pid != os.getpid()
                if named and process.environ().get("RAY_TMPDIR") == self._place:
                    found.append(process)
        return found

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, **_STORE)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
