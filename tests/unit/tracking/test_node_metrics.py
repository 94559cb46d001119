"""What is read of a node, and a sampler that never disturbs."""

import logging
import math
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pynvml
import pytest
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from qa_ray.tracking.node_metrics import NodeSample, NodeSampler, mlflow_monitors

EVERY_S = 0.02
Items = queue.SimpleQueue[NodeSample | str]


def sampling() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "sampler" in thread.name]


def take_samples(
    number: int, monitors: Callable[[], Mapping[str, Callable[[], Any]]] = mlflow_monitors, **options: bool
) -> tuple[list[NodeSample], list[str]]:
    """The first samples, and the messages up to then."""
    items: Items = queue.SimpleQueue()
    samples: list[NodeSample] = []
    messages: list[str] = []
    with NodeSampler(EVERY_S, items.put, items.put, address="10.0.0.5", monitors=monitors, **options):
        while len(samples) < number:
            item = items.get()
            (messages if isinstance(item, str) else samples).append(item)
    return samples, messages


def test_names_and_units_are_those_of_mlflow() -> None:
    samples, messages = take_samples(1)
    expected: dict[str, float] = {}
    for monitor in (CPUMonitor(), DiskMonitor(), NetworkMonitor()):
        monitor.collect_metrics()
        expected |= monitor.aggregate_metrics()
    found = samples[0].metrics
    assert not messages
    assert found.keys() == expected.keys()
    for name in ("system_memory_usage_megabytes", "disk_usage_megabytes", "disk_available_megabytes"):
        assert found[name] == pytest.approx(expected[name], rel=0.3)
    for name in ("system_memory_usage_percentage", "disk_usage_percentage"):
        assert found[name] == pytest.approx(expected[name], abs=20)


def test_samples_follow_one_another_with_values_in_range() -> None:
    before = time.time()
    samples, _ = take_samples(3)
    times = [sample.time for sample in samples]
    assert before < times[0] < times[1] < times[2] < time.time()
    assert times[2] - times[0] >= 2 * EVERY_S
    for sample in samples:
        assert all(math.isfinite(value) and value >= 0 for value in sample.metrics.values())
        assert all(value <= 100 for name, value in sample.metrics.items() if name.endswith("percentage"))


@pytest.mark.parametrize(("alone", "node"), [(False, "10.0.0.5"), (True, None)], ids=["one of several", "alone"])
def test_sample_names_its_node_where_there_are_others(alone: bool, node: str | None) -> None:
    samples, _ = take_samples(1, alone=alone)
    assert samples[0].node == node


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="needs a machine without NVIDIA's driver")
def test_machine_without_nvidias_driver_has_no_gpu_metrics() -> None:
    assert mlflow_monitors()["GPU"]() is None


class Failing:
    """A monitor whose GPU is lost."""

    def __init__(self) -> None:
        self.asked = 0

    def collect_metrics(self) -> None:
        self.asked += 1
        raise pynvml.NVMLError_GpuIsLost


def test_monitor_that_fails_is_told_once_and_not_asked_again() -> None:
    def lost() -> None:
        raise RuntimeError("no driver")

    failing = Failing()
    made = {**mlflow_monitors(), "GPU": lambda: failing, "power": lost}
    samples, messages = take_samples(3, lambda: made)
    assert messages == [
        "power use of the node 10.0.0.5 is not recorded: no driver",
        "GPU use of the node 10.0.0.5 is not recorded: GPU is lost",
    ]
    assert failing.asked == 1
    assert all("cpu_utilization_percentage" in sample.metrics for sample in samples)


def test_sampler_that_cannot_send_says_so_and_stops(caplog: pytest.LogCaptureFixture) -> None:
    calls: Items = queue.SimpleQueue()

    def put(item: NodeSample | str) -> None:
        calls.put(item)
        raise RuntimeError("the stream is gone")

    with caplog.at_level(logging.WARNING, "qa_ray"), NodeSampler(EVERY_S, put, put, address="10.0.0.5"):
        for thread in sampling():
            thread.join()
    assert calls.qsize() == 1
    assert [record.message for record in caplog.records] == [
        "the use of the node 10.0.0.5 is not recorded any more: the stream is gone"
    ]


def test_nothing_is_sent_once_the_context_is_left() -> None:
    items: Items = queue.SimpleQueue()
    with NodeSampler(EVERY_S, items.put, items.put, address="10.0.0.5"):
        items.get()
        assert sampling()
    assert not sampling()
