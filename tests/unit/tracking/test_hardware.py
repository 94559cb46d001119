"""What a run's workers compute on, counted by kind over all groups that trained."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from qa_ray.runs.run import peak_memory
from qa_ray.storage.run_folder import ENVIRONMENT, RunFolder
from qa_ray.tracking.hardware import EnvironmentRecord, Hardware, WorkerGroup, environment_texts
from qa_ray.tracking.metrics import PEAK_MEMORY_GB
from qa_ray.tracking.tracker import Tracker

A10G = Hardware(gpu="NVIDIA A10G", cpu="AMD EPYC 7R32", cpu_cores="48", memory_gb="192", precision="fp16")
T4 = Hardware(gpu="Tesla T4", cpu="Intel Xeon", cpu_cores="8", memory_gb="32", precision="fp16")
CPU = Hardware(gpu="", cpu="Intel Xeon", cpu_cores="8", memory_gb="32", precision="fp16")


class Told(Tracker):
    """A tracker that holds its tags."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags |= tags


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "runs"), "run")


def group(*nodes: tuple[Hardware, int]) -> WorkerGroup:
    """Workers by node: (kind, how many of it)."""
    return WorkerGroup(
        tuple((f"node {number}", kind) for number, (kind, many) in enumerate(nodes) for _ in range(many))
    )


def environment(folder: RunFolder) -> dict[str, str]:
    return environment_texts(json.loads(folder.read(ENVIRONMENT) or ""))


def test_workers_and_nodes_of_two_kinds_are_told_beside_versions(folder: RunFolder) -> None:
    tracker = Told()
    record = EnvironmentRecord(folder, tracker)
    assert environment(folder).keys() >= {"python", "torch", "ray"}
    assert not {"cpu", "cpu_cores", "memory_gb", "gpu", "workers"} & environment(folder).keys()
    record(group((A10G, 4), (T4, 1), (A10G, 4)))
    text = (
        "8 x NVIDIA A10G on 2 nodes, each with 48 cores of AMD EPYC 7R32 and 192 GB, in fp16; "
        "1 x Tesla T4 on 1 node with 8 cores of Intel Xeon and 32 GB, in fp16"
    )
    assert environment(folder)["workers"] == tracker.tags["environment.workers"] == text


def test_kinds_that_left_stay_with_the_most_at_a_time_also_in_a_later_process(folder: RunFolder) -> None:
    record = EnvironmentRecord(folder, Told())
    record(group((A10G, 1), (A10G, 1)))
    record(group((A10G, 1)))
    tracker = Told()
    later = EnvironmentRecord(folder, tracker)
    first = "2 x NVIDIA A10G on 2 nodes, each with 48 cores of AMD EPYC 7R32 and 192 GB, in fp16"
    assert tracker.tags == {"environment.workers": first}
    later(group((A10G, 1), (CPU, 2)))
    assert (
        environment(folder)["workers"]
        == f"{first}; 2 CPU workers on 1 node with 8 cores of Intel Xeon and 32 GB, in fp16"
    )


def test_file_of_an_earlier_version_is_read_and_its_machine_is_not_taken_for_a_worker(folder: RunFolder) -> None:
    before = {"python": "3.11.0", "cpu": "driver's", "cpu_cores": "4", "memory_gb": "16", "gpu": "1 x driver's"}
    assert environment_texts(before) == before
    folder.write(ENVIRONMENT, json.dumps(before).encode())
    EnvironmentRecord(folder, Told())(group((CPU, 1)))
    found = environment(folder)
    assert found["workers"] == "1 CPU worker on 1 node with 8 cores of Intel Xeon and 32 GB, in fp16"
    assert "driver's" not in str(found)


def test_folder_that_cannot_be_written_is_told_and_the_tag_is_set(
    folder: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Told()
    record = EnvironmentRecord(folder, tracker)
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "runs").write_text("no folder")
    with caplog.at_level(logging.WARNING, "qa_ray"):
        record(group((CPU, 1)))
    assert "environment.json is not written" in caplog.text
    assert tracker.tags["environment.workers"].startswith("1 CPU worker ")


def test_worker_tells_its_own_machine() -> None:
    here = Hardware.here("NVIDIA A10G", "fp16")
    assert here.gpu == "NVIDIA A10G"
    assert int(here.cpu_cores) >= 1
    assert int(here.memory_gb) >= 1


def test_peak_of_a_worker_without_gpu_is_that_of_its_host_alone() -> None:
    peaks = peak_memory(torch.device("cpu"))
    assert peaks.keys() == {PEAK_MEMORY_GB}
    assert peaks[PEAK_MEMORY_GB] > 0.01
