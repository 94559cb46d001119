"""The curves of each node in the run's record, which go on where they stopped when the run does."""

import json
import logging

from qa_ray.errors import StorageError
from qa_ray.storage import RunFolder
from qa_ray.tracking.records import SYSTEM_PREFIX
from qa_ray.tracking.tracker import Tracker
from qa_ray.training.node_metrics import NodeSample

logger = logging.getLogger(__name__)

_FILE = "nodes.json"


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
        known = json.loads(folder.read(_FILE) or "{}")
        self._began: float | None = known.get("began")
        self._nodes: list[str] = known.get("nodes", [])

    def __call__(self, sample: NodeSample) -> None:
        """Record a sample."""
        if self._began is None:
            self._began = sample.time
            self._save()
        prefix = SYSTEM_PREFIX if sample.node is None else f"{SYSTEM_PREFIX}node_{self._number(sample.node)}/"
        metrics = {prefix + name: value for name, value in sample.metrics.items()}
        self._tracker.log_metrics(metrics, int(sample.time - self._began))

    def _number(self, node: str) -> int:
        if node not in self._nodes:
            self._nodes.append(node)
            self._save()
            self._tracker.set_tags({f"node_{len(self._nodes) - 1}": node})
        return self._nodes.index(node)

    def _save(self) -> None:
        try:
            self._folder.write(_FILE, json.dumps({"began": self._began, "nodes": self._nodes}).encode())
        except StorageError as error:
            logger.warning("%s is not written: %s", _FILE, error)
