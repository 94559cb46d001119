"""The count of control traffic, on two nodes: what it counts is what was said, and follows from the protocol."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qa_ray.tracking.metrics import Progress
from qa_ray.tracking.node_metrics import NodeSample
from traffic.counting import CountingStream, Kind, Traffic, size
from traffic.stub import LOG_EVERY, METRICS

TESTS = Path(__file__).parents[1]


@pytest.mark.long
def test_only_decisions_samples_and_polls_grow_with_the_nodes() -> None:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    words = [sys.executable, "-m", "traffic", "--nodes", "1", "2", "--seconds", "5", "--as-json"]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    for nodes, counted in zip((1, 2), map(json.loads, done.stdout.splitlines()), strict=True):
        said: dict[str, Any] = {kind: traffic["messages"] for kind, traffic in counted["whole"].items()}
        talks = said[Kind.WISHES] // 2
        assert talks >= 10
        assert said[Kind.DECISIONS] == 2 * talks * (nodes - 1)
        assert said[Kind.RECORDS] == 2 * (counted["steps"] // LOG_EVERY)
        assert said[Kind.SAMPLES] >= 2 * nodes
        assert said[Kind.POLLS] >= 2 * nodes
        assert said[Kind.POLLS] % (2 * nodes) == 0
        assert said[Kind.FETCHES] >= 2
        assert counted["loopback"]["bytes"] > sum(traffic["bytes"] for traffic in counted["measured"].values())


def test_each_call_is_a_question_and_an_answer_of_what_they_hold() -> None:
    stream = CountingStream()
    record, sample = Progress("train", 1, 9, 1, METRICS), NodeSample("127.0.0.1", METRICS, 0.0)
    stream.put(record)
    stream.put_sample(sample)
    wishes = stream.wishes()
    assert stream.take() == [record]
    assert stream.take_samples() == [sample]
    nothing = size(None)
    assert stream.counts() == {
        Kind.RECORDS: Traffic(2, size(record) + nothing),
        Kind.SAMPLES: Traffic(2, size(sample) + nothing),
        Kind.WISHES: Traffic(2, size(wishes) + nothing),
        Kind.FETCHES: Traffic(4, size([record]) + size([sample]) + 2 * nothing),
    }


def test_loopback_grows_with_what_is_sent() -> None:
    before = Traffic.on_loopback()
    with subprocess.Popen([sys.executable, "-c", SEND], stdout=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        assert sender.stdout.read() == b"1000000"
    assert (Traffic.on_loopback() - before).bytes >= 1_000_000


SEND = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
    far, _ = server.accept()
    number = 0
    for _ in range(100):
        near.sendall(bytes(10_000))
        got = 0
        while got < 10_000:
            got += len(far.recv(10_000))
        number += got
    print(number, end="")
"""
