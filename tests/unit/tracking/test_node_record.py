"""Curves of nodes in MLflow's local store."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient

from qa_ray.config.operation import TrackingConfig
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.node_metrics import NodeRecord, NodeSample
from qa_ray.tracking.recording import start_tracker
from qa_ray.tracking.tracker import RunStatus, Tracker

BEGAN = 1_700_000_000.25


class Store:
    """An MLflow store, and a run in it that goes on as often as it is asked for."""

    def __init__(self, place: Path, folder: RunFolder) -> None:
        self._config = TrackingConfig(uri=f"sqlite:///{place}/mlflow.db")
        self._client = MlflowClient(self._config.uri)
        self._folder = folder
        self._run_id: str | None = None

    def open(self) -> Tracker:
        tracker = start_tracker(self._config, self._folder)
        self._run_id = tracker.run_id
        return tracker

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Steps and values of all metrics."""
        names = self._client.get_run(self._run_id).data.metrics
        histories = {name: self._client.get_metric_history(self._run_id, name) for name in names}
        return {name: [(point.step, point.value) for point in points] for name, points in histories.items()}

    def tags(self) -> dict[str, str]:
        return dict(self._client.get_run(self._run_id).data.tags)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "runs"), "run")


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, folder: RunFolder) -> Store:
    shutil.copy(empty_database, tmp_path)
    return Store(tmp_path, folder)


def sample(seconds: float, node: str | None, busy: float) -> NodeSample:
    return NodeSample(node, {"cpu_utilization_percentage": busy}, BEGAN + seconds)


def test_node_keeps_its_curve_and_steps_rise_when_the_run_goes_on(store: Store, folder: RunFolder) -> None:
    tracker = store.open()
    record = NodeRecord(folder, tracker)
    for item in (sample(0, "10.0.0.5", 1), sample(3.5, "10.0.0.6", 2), sample(10.5, "10.0.0.5", 3)):
        record(item)
    tracker.finish(RunStatus.KILLED)
    tracker = store.open()
    record = NodeRecord(folder, tracker)
    # In another order than before.
    for item in (sample(60, "10.0.0.6", 4), sample(61.9, "10.0.0.7", 5), sample(62, "10.0.0.5", 6)):
        record(item)
    tracker.finish(RunStatus.FINISHED)
    assert store.curves() == {
        "system/node_0/cpu_utilization_percentage": [(0, 1), (10, 3), (62, 6)],
        "system/node_1/cpu_utilization_percentage": [(3, 2), (60, 4)],
        "system/node_2/cpu_utilization_percentage": [(61, 5)],
    }
    tags = store.tags()
    assert [tags[f"node_{number}"] for number in range(3)] == ["10.0.0.5", "10.0.0.6", "10.0.0.7"]


def test_only_node_of_a_cluster_has_the_names_of_mlflow(store: Store, folder: RunFolder) -> None:
    tracker = store.open()
    NodeRecord(folder, tracker)(sample(0, None, 1))
    tracker.finish(RunStatus.FINISHED)
    assert store.curves() == {"system/cpu_utilization_percentage": [(0, 1)]}
    assert "node_0" not in store.tags()


def test_later_process_tells_the_addresses_again(folder: RunFolder) -> None:
    class Told(Tracker):
        def __init__(self) -> None:
            self.tags: dict[str, str] = {}

        def set_tags(self, tags: Mapping[str, str]) -> None:
            self.tags |= tags

    first, later = Told(), Told()
    NodeRecord(folder, first)(sample(0, "10.0.0.5", 1))
    # The server may have been away when the first one told it.
    NodeRecord(folder, later)
    assert first.tags == later.tags == {"node_0": "10.0.0.5"}


def test_folder_that_cannot_be_written_does_not_stop_the_record(
    store: Store, folder: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = store.open()
    record = NodeRecord(folder, tracker)
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "runs").write_text("no folder")
    with caplog.at_level(logging.WARNING, "qa_ray"):
        record(sample(0, "10.0.0.5", 1))
        record(sample(10, "10.0.0.5", 2))
    tracker.finish(RunStatus.FINISHED)
    assert store.curves() == {"system/node_0/cpu_utilization_percentage": [(0, 1), (10, 2)]}
    assert "nodes.json is not written" in caplog.text


def test_file_tells_which_node_has_which_number(store: Store, folder: RunFolder) -> None:
    tracker = store.open()
    record = NodeRecord(folder, tracker)
    record(sample(0, "10.0.0.5", 1))
    record(sample(1, "10.0.0.6", 1))
    tracker.finish(RunStatus.FINISHED)
    assert json.loads(folder.read("nodes.json") or "") == {"began": BEGAN, "nodes": ["10.0.0.5", "10.0.0.6"]}
