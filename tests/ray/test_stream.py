"""The actor between workers and driver, whose end must not be the run's."""

import math
import os
import signal
from collections.abc import Mapping

import psutil
import pytest
import ray
from strict import parse

from qa_ray.runs.stream import Follower, Restart, StreamSender, start_stream
from qa_ray.tracking.metrics import Progress
from qa_ray.tracking.tracker import Tracker

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


def test_metrics_that_are_not_finite_are_null_and_are_not_recorded_whether_the_run_goes_on_or_not() -> None:
    recorded: list[tuple[int, dict[str, float]]] = []
    written = b""

    class Recorder(Tracker):
        def log_metrics(self, metrics: Mapping[str, float], step: int, when: float | None = None) -> None:
            recorded.append((step, dict(metrics)))

    def write(content: bytes) -> None:
        nonlocal written
        written = content

    stream = start_stream()
    sender = StreamSender(stream)
    # fp16 skips the first step; the evaluation overflowed.
    sender(Progress("train", 1, 2, 1, {"train_loss": 2.0, "grad_norm": math.inf}))
    scores = {"eval_f1": 50.0, "eval_exact_match": 40.0, "eval_loss": math.nan}
    sender(Progress("evaluate", 1, 1, 2, scores))
    sender.flush()
    with Follower(stream, write, Recorder()) as follower:
        pass
    lines = [parse(line) for line in written.splitlines()]
    assert [line | {"time": 0} for line in lines] == [
        {"time": 0, "phase": "train", "step": 1, "train_loss": 2.0, "grad_norm": None},
        {"time": 0, "phase": "evaluate", "step": 2, "eval_f1": 50.0, "eval_exact_match": 40.0, "eval_loss": None},
    ]
    finite = {"eval_f1": 50.0, "eval_exact_match": 40.0}
    assert recorded == [(1, {"train_loss": 2.0}), (2, finite)]
    assert follower.evaluations == {2: finite}
    # A later process has them from the checkpoint, which is JSON.
    before, recorded[:] = list(recorded), []
    ray.get(stream.put.remote(Restart(2, lines)))
    with Follower(stream, write, Recorder()) as follower:
        pass
    assert recorded == before
    assert follower.evaluations == {2: finite}
    assert [parse(line) for line in written.splitlines()] == lines


def streams() -> set[int]:
    """Processes that are streams."""
    return {process.pid for process in psutil.process_iter(["name"]) if "MetricStream" in process.info["name"]}
