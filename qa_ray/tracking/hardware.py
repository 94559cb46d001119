"""What a run's workers compute on: each tells its own, the driver counts them by kind and keeps it with the run."""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import ENVIRONMENT, RunFolder
from qa_ray.tracking.environment import describe_code, describe_machine
from qa_ray.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

_WORKERS = "workers"
"""Holds the kinds in environment.json, and names them in the record; absent in files of earlier versions."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """A kind of worker: its GPU, and the node that it stands on."""

    gpu: str
    """Name of the GPU that it computes on; empty if it computes on CPUs."""
    cpu: str
    cpu_cores: str
    """Those of the node that it may use."""
    memory_gb: str
    """The node's, in 10^9 bytes."""
    precision: str
    """Number format that it computes in."""

    @classmethod
    def here(cls, gpu: str, precision: str) -> "Hardware":
        """What a worker of this process computes on, with the GPU of this name, and in which format."""
        return cls(**describe_machine() | {"gpu": gpu, "precision": precision})


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """A group of workers that begins to train: the node's id and the hardware of each."""

    workers: tuple[tuple[str, Hardware], ...]

    def counted(self) -> dict[Hardware, tuple[int, int]]:
        """Workers, and nodes that they stand on, of each kind."""
        workers = Counter(kind for _, kind in self.workers)
        nodes = Counter(kind for _, kind in set(self.workers))
        return {kind: (number, nodes[kind]) for kind, number in workers.items()}


class EnvironmentRecord:
    """Keeps what a run is made with in environment.json and in the tracker's tags.

    Versions and commit are those of this process, where the code is; the workers are those that the groups tell of. In
    an elastic run, or one that goes on elsewhere, all kinds that have trained stay, each with the most at a time.
    """

    def __init__(self, folder: RunFolder, tracker: Tracker) -> None:
        """Go on with the record of a run.

        Raises:
            StorageError: its folder cannot be read or written.
        """
        self._folder, self._tracker = folder, tracker
        earlier = json.loads(folder.read(ENVIRONMENT) or "{}").get(_WORKERS, [])
        self._kinds = {Hardware(**fields): (workers, nodes) for workers, nodes, fields in map(_split, earlier)}
        self._code = describe_code()
        self._save()

    def __call__(self, group: WorkerGroup) -> None:
        """Record a group of workers."""
        for kind, numbers in group.counted().items():
            self._kinds[kind] = max(numbers, self._kinds.get(kind, (0, 0)))
        try:
            self._save()
        except StorageError as error:
            logger.warning("%s is not written: %s", ENVIRONMENT, error)

    def _save(self) -> None:
        kinds = [
            {"workers": workers, "nodes": nodes, **dataclasses.asdict(kind)}
            for kind, (workers, nodes) in self._kinds.items()
        ]
        found = self._code | ({_WORKERS: kinds} if kinds else {})
        if kinds:
            # The server may have been away when an earlier process told it.
            self._tracker.set_tags({f"environment.{_WORKERS}": environment_texts(found)[_WORKERS]})
        self._folder.write(ENVIRONMENT, json.dumps(found, indent=1).encode())


def environment_texts(found: Mapping[str, Any]) -> dict[str, str]:
    """What environment.json holds, as texts by name; of earlier versions it holds nothing else."""
    texts = dict(found)
    if _WORKERS in texts:
        texts[_WORKERS] = "; ".join(_told(texts[_WORKERS]))
    return texts


def _told(kinds: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for workers, nodes, kind in map(_split, kinds):
        what = f"{workers} x {kind['gpu']}" if kind["gpu"] else f"{workers} CPU worker{'s' * (workers > 1)}"
        where = f"{nodes} nodes, each" if nodes > 1 else "1 node"
        node = f"{kind['cpu_cores']} cores of {kind['cpu']} and {kind['memory_gb']} GB"
        yield f"{what} on {where} with {node}, in {kind['precision']}"


def _split(kind: Mapping[str, Any]) -> tuple[int, int, dict[str, str]]:
    fields = dict(kind)
    return fields.pop("workers"), fields.pop("nodes"), fields
