"""How many workers a run gets, and whether the cluster has room for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import ray

from qa_ray.config.operation import ClusterConfig
from qa_ray.errors import ClusterError

_CORES_FOR_TWO = 4
"""From so many on there are two CPU workers: threads of one wait for each other the more, the more there are."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The workers of a run."""

    min_workers: int
    max_workers: int
    """More than `min_workers` in an elastic run, which has as many as the cluster has room for."""
    cpus_per_worker: int
    use_gpu: bool

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change."""
        return self.max_workers > self.min_workers


def plan_resources(config: ClusterConfig) -> Resources:
    """Choose the workers that `config` leaves open, and check that the cluster can hold them.

    Raises:
        ClusterError: the cluster has too few CPUs or GPUs, and does not grow.
    """
    gpus = int(ray.cluster_resources().get("GPU", 0))
    cpus = node_cpus()
    chosen = choose(config, cpus, gpus)
    if config.autoscaling:
        return chosen
    if chosen.use_gpu and chosen.min_workers > gpus:
        raise ClusterError(
            f"cluster.num_workers={chosen.min_workers} needs as many GPUs, but the cluster has {gpus}: "
            f"{_remedy(gpus)}, or set --cluster.use-gpu False"
        )
    room = sum(number // chosen.cpus_per_worker for number in cpus)
    if chosen.min_workers > room:
        raise ClusterError(
            f"cluster.num_workers={chosen.min_workers} with cluster.cpus_per_worker={chosen.cpus_per_worker} does not "
            f"fit: the cluster has {sum(cpus)} CPUs, room for {room} such workers: {_remedy(room)}"
        )
    return chosen


def idle_note(resources: Resources, batch_size: int) -> str | None:
    """What to tell of workers that have nothing to do in any step, for want of windows in a global batch."""
    idle = resources.max_workers - batch_size
    if idle <= 0:
        return None
    return (
        f"{'up to ' * resources.elastic}{resources.max_workers} workers share the batch.size={batch_size} windows of a "
        f"step: {idle} of them have nothing to do. Set cluster.num_workers to at most {batch_size}, or raise "
        "batch.size (and optim.learning_rate with it)"
    )


def choose(config: ClusterConfig, cpus: Sequence[int], gpus: int) -> Resources:
    """Fill in what `config` leaves open for a cluster whose nodes have so many CPUs each, and so many GPUs in all."""
    use_gpu = gpus > 0 if config.use_gpu is None else config.use_gpu
    total, largest = sum(cpus), max(cpus, default=0)
    # On two cores one worker with both is faster than two workers, which exchange all gradients at each step.
    alone = total < 2 or largest == total < _CORES_FOR_TWO
    number = max(gpus, 1) if use_gpu else 1 if alone else 2
    fewest, most = config.worker_range or (number, number)
    threads = config.cpus_per_worker or (1 if use_gpu else max(min(total // most, largest), 1))
    return Resources(fewest, most, threads, use_gpu)


def node_cpus() -> list[int]:
    """CPUs of each node of the cluster."""
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def _remedy(room: int) -> str:
    most = f"set at most {room} workers, add nodes" if room else "add nodes"
    return f"{most}, or set --cluster.autoscaling where the cluster grows by itself"
