"""How busy a node is while it trains: its CPU, memory, disk, network and GPUs, named as MLflow's own monitor does.

That monitor cannot be used: it sends from each process straight to the server, and workers need no MLflow.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import psutil  # type: ignore[import-untyped]
import pynvml  # type: ignore[import-untyped]

from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import NODES, RunFolder
from qa_ray.tracking.environment import find_gpus
from qa_ray.tracking.tracker import SYSTEM_PREFIX, Tracker

logger = logging.getLogger(__name__)

Readings = dict[str, float]
Reader = Callable[[], Readings]

_MB = 1e6
# A GPU that has fallen off its bus may never answer.
_LAST_LOOK_S = 10.0
# Not all GPUs have every figure, and parts of a GPU may not ask for those of the whole.
_UNTOLD = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission)


@dataclass(frozen=True, slots=True)
class NodeSample:
    """One look at a node."""

    node: str | None
    """The node's address; None if the cluster has no other node."""
    metrics: Mapping[str, float]
    """Without MLflow's prefix: cpu_utilization_percentage and so on."""
    time: float
    """When it was taken, in seconds since 1970."""


class NodeSampler:
    """Looks at this node again and again in a thread, while the context lasts. Training neither waits for it nor fails
    with it: what cannot be read is said once, and left out from then on.
    """

    def __init__(
        self,
        every_s: float,
        put: Callable[[NodeSample | str], object],
        *,
        address: str,
        alone: bool = False,
        nvml: Any = pynvml,
    ) -> None:
        """Prepare to look.

        Args:
            every_s: seconds between two looks.
            put: takes samples, and messages for the user; must not wait.
            address: the node's.
            alone: the cluster has no other node.
            nvml: NVIDIA's binding, which tells of GPUs.
        """
        self._every_s = every_s
        self._put = put
        self._address = address
        self._alone = alone
        self._readers: dict[str, Reader] = {
            "CPU": read_cpu,
            "memory": read_memory,
            "disk": read_disk,
            "network": Traffic(),
            "GPU": partial(read_gpus, nvml),
        }
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
            # The CPU's use and the traffic are counted from here.
            self._look()
            while self._readers and not self._stop.wait(self._every_s):
                metrics = self._look()
                self._put(NodeSample(None if self._alone else self._address, metrics, time.time()))
        # Whatever it is, training goes on.
        except Exception as error:
            logger.warning("the use of the node %s is not recorded any more: %s", self._address, error)

    def _look(self) -> Readings:
        found: Readings = {}
        for name, read in list(self._readers.items()):
            try:
                found |= read()
            except Exception as error:
                del self._readers[name]
                self._put(f"{name} use of the node {self._address} is not recorded: {error or type(error).__name__}")
        return {name: round(value, 3) for name, value in found.items()}


def read_cpu() -> Readings:
    """Share of all cores' time that was used since this thread's last call."""
    return {"cpu_utilization_percentage": psutil.cpu_percent()}


def read_memory() -> Readings:
    """Main memory in use."""
    memory = psutil.virtual_memory()
    return {
        "system_memory_usage_megabytes": memory.used / _MB,
        "system_memory_usage_percentage": memory.used / memory.total * 100,
    }


def read_disk() -> Readings:
    """Use of the root filesystem."""
    disk = psutil.disk_usage("/")
    return {
        "disk_usage_percentage": disk.percent,
        "disk_usage_megabytes": disk.used / _MB,
        "disk_available_megabytes": disk.free / _MB,
    }


class Traffic:
    """Counts what all network interfaces receive and send."""

    def __init__(self) -> None:
        self._first: tuple[int, int] | None = None

    def __call__(self) -> Readings:
        """Traffic since the first call."""
        now = psutil.net_io_counters()
        received, sent = self._first = self._first or (now.bytes_recv, now.bytes_sent)
        return {
            "network_receive_megabytes": (now.bytes_recv - received) / _MB,
            "network_transmit_megabytes": (now.bytes_sent - sent) / _MB,
        }


def read_gpus(nvml: Any = pynvml) -> Readings:
    """Use of each GPU of the node, as nvidia-smi numbers them; without what a GPU does not tell.

    Raises:
        pynvml.NVMLError: a GPU or its driver does not answer as it should.
    """
    return {
        f"gpu_{index}_{name}": value
        for index, gpu in enumerate(find_gpus(nvml))
        for name, value in _read_gpu(nvml, gpu).items()
    }


def _read_gpu(nvml: Any, gpu: Any) -> Readings:
    found: Readings = {}
    with contextlib.suppress(*_UNTOLD):
        found["utilization_percentage"] = nvml.nvmlDeviceGetUtilizationRates(gpu).gpu
    with contextlib.suppress(*_UNTOLD):
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        found["memory_usage_megabytes"] = memory.used / _MB
        found["memory_usage_percentage"] = memory.used / memory.total * 100
    with contextlib.suppress(*_UNTOLD):
        milliwatts = nvml.nvmlDeviceGetPowerUsage(gpu)
        found["power_usage_watts"] = milliwatts / 1000
        found["power_usage_percentage"] = milliwatts / nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) * 100
    return found


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
