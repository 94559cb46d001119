"""How busy nodes are, on the way from the workers into MLflow's local store; test_train.py sees it in a whole run."""

from pathlib import Path

import pytest
import ray
from mlflow import MlflowClient
from ray_runs import metrics_of

from qa_ray.config.operation import TrackingConfig
from qa_ray.runs.stream import Fetcher, Follower, Restart, start_stream
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.metrics import Progress
from qa_ray.tracking.node_metrics import NodeRecord, NodeSample
from qa_ray.tracking.recording import start_tracker
from qa_ray.tracking.tracker import RunStatus

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_samples_go_on_across_a_restart_and_stay_out_of_the_metrics(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "runs"), "followed")
    tracker = start_tracker(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"), folder)
    stream = start_stream()
    history = [{"time": 1000.0, "phase": "train", "step": 1, "train_loss": 2.0}]
    items = [
        NodeSample("10.0.0.5", {"cpu_utilization_percentage": 10.0}, 990.0),
        Restart(0, []),
        Progress("train", 1, 2, 1, {"train_loss": 2.0}, 1000.0),
        NodeSample("10.0.0.5", {"cpu_utilization_percentage": 20.0}, 1001.0),
        Restart(1, history),
        NodeSample("10.0.0.5", {"cpu_utilization_percentage": 30.0}, 1002.0),
    ]
    ray.get([(stream.put_sample if isinstance(item, NodeSample) else stream.put).remote(item) for item in items])
    with (
        Follower(stream, lambda text: folder.write("metrics.jsonl", text), tracker),
        Fetcher(stream.take_samples, NodeRecord(folder, tracker)),
    ):
        pass
    tracker.finish(RunStatus.FINISHED)
    assert metrics_of(tmp_path / "runs" / "followed") == history
    store = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    points = store.get_metric_history(tracker.run_id, "system/node_0/cpu_utilization_percentage")
    assert [(point.step, point.value) for point in points] == [(0, 10.0), (11, 20.0), (12, 30.0)]
    assert len(store.get_run(tracker.run_id).data.metrics) == 2
