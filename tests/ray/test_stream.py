"""The actor between workers and driver, whose end must not be the run's."""

import logging
import math
import os
import signal
import time
from collections.abc import Mapping

import psutil
import pytest
import ray
from strict import parse

from qa_ray.errors import StorageError
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


def test_item_that_cannot_be_used_is_told_once_and_the_others_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    class Refusing(Tracker):
        def log_metrics(self, metrics: Mapping[str, float], step: int, when: float | None = None) -> None:
            if step == 2:
                raise KeyError("grad_norm")

    def observe(item: Progress | Restart) -> None:
        seen.append(item.step)
        if item.step == 3:
            raise ValueError("no such trial")

    written: list[bytes] = []
    stream = start_stream()
    sender = StreamSender(stream)
    sender.restart(0, [])
    for step in range(1, 7):
        sender(Progress("train", step, 6, step, {"train_loss": 1 / step}))
        # What cannot be shown at all: an evaluation without its scores.
        sender(Progress("evaluate", 1, 1, step, {"eval_f1": 50.0}))
    sender.flush()
    with caplog.at_level(logging.WARNING, "qa_ray"), Follower(stream, written.append, Refusing(), observe) as follower:
        pass
    assert [parse(line)["step"] for line in written[-1].splitlines()] == [
        step for step in range(1, 7) for _ in range(2)
    ]
    assert follower.evaluations == {step: {"eval_f1": 50.0} for step in range(1, 7)}
    assert seen == [0, *(step for step in (1, 3, 4, 5, 6) for _ in range(2))]
    told = sorted(record.message.rpartition("(")[2] for record in caplog.records)
    assert told == [
        "KeyError: 'eval_exact_match')",
        "KeyError: 'grad_norm')",
        "ValueError: no such trial)",
    ]


def test_storage_that_goes_on_failing_is_told_once_and_does_not_end_the_follower(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qa_ray.runs.stream._SECONDS_BETWEEN_WRITES", 0.0)
    reasons = ["the disk is full"] * 3

    def write(content: bytes) -> None:
        raise StorageError(reasons.pop() if reasons else "the disk is gone")

    stream = start_stream()
    StreamSender(stream)(Progress("train", 1, 1, 1, {"train_loss": 1.0}))
    with caplog.at_level(logging.WARNING, "qa_ray"), Follower(stream, write, Tracker()):
        while reasons:
            time.sleep(0.1)
    told = [record.message for record in caplog.records]
    assert told == [f"metrics.jsonl is not written: the disk is {state}" for state in ("full", "gone")]


def test_stream_that_is_gone_is_told_and_does_not_end_the_follower(caplog: pytest.LogCaptureFixture) -> None:
    stream = start_stream()
    StreamSender(stream).flush()
    ray.kill(stream)
    with caplog.at_level(logging.WARNING, "qa_ray"), Follower(stream, lambda content: None, Tracker()):
        pass
    assert "ActorDiedError" in caplog.records[0].message


def streams() -> set[int]:
    """Processes that are streams."""
    return {process.pid for process in psutil.process_iter(["name"]) if "MetricStream" in process.info["name"]}
