"""How busy a node is while it trains: MLflow's own monitors of CPU, memory, disk, network and GPUs, read on each node.

What they tell goes to the driver, which alone talks to MLflow's server.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import NODES, RunFolder
from qa_ray.tracking.environment import find_gpus
from qa_ray.tracking.tracker import SYSTEM_PREFIX, Tracker

logger = logging.getLogger(__name__)

# A GPU that has fallen off its bus may never answer.
_LAST_LOOK_S = 10.0


@dataclass(frozen=True, slots=True)
class NodeSample:
    """One look at a node."""

    node: str | None
    """The node's address; None if the cluster has no other node."""
    metrics: Mapping[str, float]
    """Without MLflow's prefix: cpu_utilization_percentage and so on."""
    time: float
    """When it was taken, in seconds since 1970."""


def mlflow_monitors() -> dict[str, Callable[[], Any]]:
    """What makes MLflow's monitors, by what they look at; the GPU's makes none where there is no GPU."""
    # Here: MLflow takes seconds to import, and most runs need none of it on their workers.
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    gpus = {"GPU": lambda: GPUMonitor() if find_gpus() else None}
    return {"CPU and memory": CPUMonitor, "disk": DiskMonitor, "network": NetworkMonitor, **gpus}


class NodeSampler:
    """Looks at this node again and again in a thread, while the context lasts. Training neither waits for it nor fails
    with it: what cannot be read is said once, and left out from then on.
    """

    def __init__(
        self,
        every_s: float,
        put: Callable[[NodeSample], object],
        tell: Callable[[str], object],
        *,
        address: str,
        alone: bool = False,
        monitors: Callable[[], Mapping[str, Callable[[], Any]]] = mlflow_monitors,
    ) -> None:
        """Prepare to look.

        Args:
            every_s: seconds between two looks.
            put: takes samples; must not wait.
            tell: takes messages for the user; must not wait.
            address: the node's.
            alone: the cluster has no other node.
            monitors: what looks, in the form of `mlflow_monitors`; called in the thread.
        """
        self._every_s = every_s
        self._put = put
        self._tell = tell
        self._address = address
        self._node = None if alone else address
        self._make_monitors = monitors
        self._monitors: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qa_ray-node-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(_LAST_LOOK_S)

    def _run(self) -> None:
        try:
            for name, make in self._make_monitors().items():
                with self._told(name):
                    if monitor := make():
                        self._monitors[name] = monitor
            # The CPU's use is counted from here.
            self._look()
            ended = False
            while self._monitors and not ended:
                # However short the run was, it has its end.
                ended = self._stop.wait(self._every_s)
                self._put(NodeSample(self._node, self._look(), time.time()))
        # Whatever it is, training goes on.
        except Exception as error:
            logger.warning("the use of the node %s is not recorded any more: %s", self._address, error)

    def _look(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, monitor in list(self._monitors.items()):
            with self._told(name):
                monitor.collect_metrics()
                found |= monitor.aggregate_metrics()
                monitor.clear_metrics()
        return found

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Do without a monitor that fails, and say so."""
        try:
            yield
        except Exception as error:
            self._monitors.pop(name, None)
            self._tell(f"{name} use of the node {self._address} is not recorded: {error or type(error).__name__}")


class NodeRecord:
    """Records samples of nodes, which say nothing of the training: they stay out of its metrics.

    MLflow's pages draw the nodes of a run in one chart if they are called node_0, node_1 and so on. Ray's own ranks
    change with every group of workers: here each address keeps the number that it first got, in nodes.json. Steps are
    the seconds since the run's first sample, so that they rise whatever the optimizer's steps do.
    """

    def __init__(self, folder: RunFolder, tracker: Tracker) -> None:
        """Go on with the numbers of a run.

        Raises:
            StorageError: its folder cannot be read.
        """
        self._folder = folder
        self._tracker = tracker
        known = json.loads(folder.read(NODES) or "{}")
        self._began: float | None = known.get("began")
        self._nodes: list[str] = known.get("nodes", [])
        tracker.set_tags({f"node_{number}": node for number, node in enumerate(self._nodes)})

    def __call__(self, sample: NodeSample) -> None:
        """Record a sample."""
        if self._began is None:
            self._began = sample.time
            self._save()
        prefix = SYSTEM_PREFIX if sample.node is None else f"{SYSTEM_PREFIX}node_{self._number(sample.node)}/"
        metrics = {prefix + name: value for name, value in sample.metrics.items()}
        self._tracker.log_metrics(metrics, int(sample.time - self._began), sample.time)

    def _number(self, node: str) -> int:
        if node not in self._nodes:
            self._nodes.append(node)
            self._save()
            self._tracker.set_tags({f"node_{len(self._nodes) - 1}": node})
        return self._nodes.index(node)

    def _save(self) -> None:
        try:
            self._folder.write(NODES, json.dumps({"began": self._began, "nodes": self._nodes}).encode())
        except StorageError as error:
            logger.warning("%s is not written: %s", NODES, error)
