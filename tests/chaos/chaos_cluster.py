"""A cluster of several Ray nodes on this machine, which lives on while jobs come and go and loses nodes at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil  # type: ignore[import-untyped]
from ray.cluster_utils import Cluster

_NODES = 2
# Ray's own settings would notice a lost node after half a minute.
_SYSTEM = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
    # Even this little data must be in the nodes' object stores, as large data is, and be lost with them.
    "max_direct_call_object_size": 1000,
}
_STORE_BYTES = 100 * 2**20


def use_folder(place: Path) -> None:
    """Let this process, its cluster and its jobs keep their temporary files in `place`."""
    (place / "tmp").mkdir()
    os.environ["TMPDIR"] = str(place / "tmp")
    # Short, since the paths of Ray's sockets are limited.
    os.environ["RAY_TMPDIR"] = str(place)


class Nodes:
    """A head without CPUs, and nodes with room for one worker each; driven from the main thread alone."""

    def __init__(self, place: Path) -> None:
        """Start them, with their files in `place`."""
        self._place = place
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        with _signals_kept():
            self._cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": _SYSTEM})
        self._nodes = [self._add() for _ in range(_NODES)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        # At once: nodes would take half a minute to take their leave.
        _kill(self._processes())
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        """What a job joins."""
        return str(self._cluster.address)

    def workers(self) -> list[psutil.Process]:
        """The processes that train, by their process id."""
        return [process for process in self._processes() if "RayTrainWo" in process.info["name"]]

    def __len__(self) -> int:
        return len(self._nodes)

    def kill(self, number: int) -> None:
        """Lose a node and all that runs on it at once, and put a new one in its place."""
        node = self._nodes.pop(number)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        _kill([raylet, *raylet.children(recursive=True)])
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())

    def _add(self) -> Any:
        with _signals_kept():
            return self._cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)

    def _processes(self) -> list[psutil.Process]:
        """All processes of this cluster, and of no other on the machine."""
        found = []
        for process in psutil.process_iter(["name", "pid"]):
            try:
                belongs = process.environ().get("RAY_TMPDIR") == str(self._place) and process.pid != os.getpid()
                found += [process] if belongs else []
            except psutil.Error:
                continue
        return found


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Undo that each Ray node which a process starts takes SIGTERM over, and answers it after half a minute."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue
