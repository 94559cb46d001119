"""The actor between workers and driver, whose end must not be the run's."""

import os
import signal

import psutil
import pytest
import ray

from qa_ray.runs.stream import StreamSender, start_stream
from qa_ray.tracking.metrics import Progress

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_stream_that_is_killed_goes_on() -> None:
    known = streams()
    stream = start_stream()
    sender = StreamSender(stream)
    sender.flush()
    (process,) = streams() - known
    os.kill(process, signal.SIGKILL)
    sender(Progress("train", 1, 2, 1, {"train_loss": 2.0}))
    sender.flush()
    assert [item.step for item in ray.get(stream.take.remote())] == [1]


def streams() -> set[int]:
    """Processes that are streams."""
    return {process.pid for process in psutil.process_iter(["name"]) if "MetricStream" in process.info["name"]}
