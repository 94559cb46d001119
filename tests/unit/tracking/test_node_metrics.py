"""What is read of a node, and a sampler that never disturbs."""

import logging
import math
import queue
import shutil
import socket
import threading
import time
from types import SimpleNamespace

import psutil
import pynvml
import pytest
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from nvml import GPUS, nvml

from qa_ray.tracking.node_metrics import NodeSample, NodeSampler, Traffic, read_cpu, read_gpus

EVERY_S = 0.02
Items = queue.SimpleQueue[NodeSample | str]


def sampling() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "sampler" in thread.name]


def take_samples(number: int, binding: SimpleNamespace, **options: bool) -> tuple[list[NodeSample], list[str]]:
    """The first samples, and the messages up to then."""
    items: Items = queue.SimpleQueue()
    samples: list[NodeSample] = []
    messages: list[str] = []
    with NodeSampler(EVERY_S, items.put, address="10.0.0.5", nvml=binding, **options):
        while len(samples) < number:
            item = items.get()
            (messages if isinstance(item, str) else samples).append(item)
    return samples, messages


def test_names_and_units_are_those_of_mlflow() -> None:
    samples, messages = take_samples(1, nvml([]))
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
    samples, _ = take_samples(3, nvml([]))
    times = [sample.time for sample in samples]
    assert before < times[0] < times[1] < times[2] < time.time()
    assert times[2] - times[0] >= 2 * EVERY_S
    for sample in samples:
        assert all(math.isfinite(value) and value >= 0 for value in sample.metrics.values())
        assert all(value <= 100 for name, value in sample.metrics.items() if name.endswith("percentage"))


@pytest.mark.parametrize(("alone", "node"), [(False, "10.0.0.5"), (True, None)], ids=["one of several", "alone"])
def test_sample_names_its_node_where_there_are_others(alone: bool, node: str | None) -> None:
    samples, _ = take_samples(1, nvml([]), alone=alone)
    assert samples[0].node == node


def test_busy_cpu_shows() -> None:
    read_cpu()
    began, own = time.perf_counter(), time.process_time()
    while time.process_time() - own < 0.5:
        pass
    share = 0.5 / (time.perf_counter() - began) / psutil.cpu_count()
    assert read_cpu()["cpu_utilization_percentage"] > 100 * share / 2


def test_traffic_counts_from_the_first_look() -> None:
    traffic = Traffic()
    assert set(traffic().values()) == {0.0}
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sender,
        server.accept()[0] as receiver,
    ):
        for _ in range(300):
            sender.sendall(bytes(10_000))
            receiver.recv(10_000, socket.MSG_WAITALL)
    found = traffic()
    assert found["network_receive_megabytes"] >= 3
    assert found["network_transmit_megabytes"] >= 3


def test_gpus_are_read_and_figures_that_they_do_not_tell_are_left_out() -> None:
    assert read_gpus(nvml(GPUS)) == {
        "gpu_0_utilization_percentage": 35,
        "gpu_0_memory_usage_megabytes": 1000,
        "gpu_0_memory_usage_percentage": 1.25,
        "gpu_0_power_usage_watts": 175.5,
        "gpu_0_power_usage_percentage": pytest.approx(25.0714, abs=1e-4),
        "gpu_1_memory_usage_megabytes": 40_000,
        "gpu_1_memory_usage_percentage": 50,
        "gpu_2_power_usage_watts": 30,
    }


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="needs a machine without NVIDIA's driver")
def test_machine_without_nvidias_driver_has_no_gpu_metrics() -> None:
    assert read_gpus() == {}


def test_driver_without_a_gpu_has_no_gpu_metrics() -> None:
    assert read_gpus(nvml([])) == {}


def test_gpu_that_fails_is_told_once_and_not_asked_again() -> None:
    calls = []

    def start() -> None:
        calls.append("asked")
        raise pynvml.NVMLError_GpuIsLost

    samples, messages = take_samples(3, nvml([], start))
    assert messages == ["GPU use of the node 10.0.0.5 is not recorded: GPU is lost"]
    assert calls == ["asked"]
    assert all("cpu_utilization_percentage" in sample.metrics for sample in samples)


def test_sampler_that_cannot_send_says_so_and_stops(caplog: pytest.LogCaptureFixture) -> None:
    calls: Items = queue.SimpleQueue()

    def put(item: NodeSample | str) -> None:
        calls.put(item)
        raise RuntimeError("the stream is gone")

    with caplog.at_level(logging.WARNING, "qa_ray"), NodeSampler(EVERY_S, put, address="10.0.0.5", nvml=nvml([])):
        for thread in sampling():
            thread.join()
    assert calls.qsize() == 1
    assert [record.message for record in caplog.records] == [
        "the use of the node 10.0.0.5 is not recorded any more: the stream is gone"
    ]


def test_nothing_is_sent_once_the_context_is_left() -> None:
    items: Items = queue.SimpleQueue()
    with NodeSampler(EVERY_S, items.put, address="10.0.0.5", nvml=nvml([])):
        items.get()
        assert sampling()
    assert not sampling()
