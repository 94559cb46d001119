"""Count the messages and bytes that the control of a run takes in a minute, on clusters of more and more nodes.

make traffic
make traffic ARGS='--nodes 1 2 4'

The nodes are Ray nodes on this machine, with a worker each whose steps do nothing.
"""

import contextlib
import json
import logging
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import ray
import tyro
from ray.cluster_utils import Cluster

from qa_ray.config.operation import ClusterConfig
from qa_ray.runs.driver import make_trainer, patience
from qa_ray.runs.resources import Resources
from qa_ray.runs.stream import Fetcher, Follower
from qa_ray.tracking.tracker import Tracker
from traffic.counting import CountingStream, Kind, PollCounter, Traffic
from traffic.stub import work

_TALKS_BEFORE = 10
"""Ranks talk at every step at first, and then about once a second."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Count the messages and bytes that the control of a run takes in a minute, on clusters of more and more nodes."""

    nodes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Nodes of each cluster, with a worker on each."""
    seconds: float = 30.0
    """How long is counted."""
    as_json: bool = False
    """Writes all that was counted as a line of JSON for each cluster, in place of a table."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a run on so many nodes took."""

    nodes: int
    seconds: float
    steps: int
    measured: dict[str, Traffic]
    """By kind, in these seconds."""
    whole: dict[str, Traffic]
    """By kind, over the whole run."""
    loopback: Traffic
    """All that the machine sent to itself in these seconds, for Ray's own ends too."""


class Nodes:
    """A head without CPUs, and nodes that have room for one worker and little for data."""

    def __init__(self) -> None:
        small = {"object_store_memory": 80 * 2**20}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": {"prestart_worker_first_driver": False}}
        self._add = partial(Cluster.add_node, num_cpus=1, **small)
        self._cluster = Cluster(initialize_head=True, head_node_args=head | small)
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        ray.shutdown()
        for node in list(self._cluster.worker_nodes):
            # At once: it would take half a minute to take its leave.
            self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.shutdown()

    def grow(self, number: int) -> None:
        """Add nodes until there are so many."""
        while len(self._cluster.worker_nodes) < number:
            self._add(self._cluster)


def count(nodes: int, seconds: float) -> Counted:
    """Run on all nodes of the cluster, and count."""
    stream: Any = ray.remote(num_cpus=0)(CountingStream).remote()
    resources = Resources(nodes, nodes, 1, use_gpu=False)
    follower = Follower(stream, lambda content: None, Tracker())
    with tempfile.TemporaryDirectory() as place, patience(resources), ThreadPoolExecutor(1) as beside:
        trainer = make_trainer(partial(work, stream), resources, ClusterConfig(), name="traffic", storage_path=place)
        trainer.run_config.callbacks.append(PollCounter(stream))
        with follower, Fetcher(stream.take_samples, lambda sample: None):
            run = beside.submit(trainer.fit)
            while not run.done() and _counts(stream)[Kind.WISHES].messages < 2 * _TALKS_BEFORE:
                time.sleep(0.5)
            first, before, begun = _counts(stream), Traffic.on_loopback(), time.monotonic()
            time.sleep(seconds)
            last, loopback, took = _counts(stream), Traffic.on_loopback() - before, time.monotonic() - begun
            ray.get(stream.stop.remote())
            steps = run.result().return_value
    whole = _counts(stream)
    measured = {kind: last[kind] - first[kind] for kind in Kind}
    # They are counted on the ranks, which tell at the end: as many for each talk.
    talks, all_talks = measured[Kind.WISHES].messages, whole[Kind.WISHES].messages
    told = whole[Kind.DECISIONS]
    measured[Kind.DECISIONS] = Traffic(told.messages * talks // all_talks, told.bytes * talks // all_talks)
    return Counted(nodes, took, steps, measured, whole, loopback)


def _counts(stream: Any) -> dict[Kind, Traffic]:
    found = ray.get(stream.counts.remote())
    return {kind: found.get(kind, Traffic()) for kind in Kind}


def row(counted: Counted) -> str:
    """A row of the table: messages and kB in a minute, by kind and in all."""
    minute = 60 / counted.seconds
    named = [counted.measured[kind] for kind in Kind]
    cells = [*named, sum(named, Traffic()), counted.loopback]
    told = (f"{minute * cell.messages:,.0f}, {minute * cell.bytes / 1000:,.1f} kB" for cell in cells)
    return f"| {counted.nodes} | {' | '.join(told)} |"


def main() -> None:
    """Count on each cluster, and print a line as soon as it is known."""
    options = tyro.cli(Options, prog="traffic")
    os.environ["RAY_API_SERVER_ADDRESS"] = "http://127.0.0.1:1"  # a dashboard is looked for in vain at once
    if not options.as_json:
        names = ["nodes", *Kind, "all", "loopback"]
        print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}", flush=True)
    with Nodes() as nodes:
        for number in sorted(options.nodes):
            nodes.grow(number)
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # the progress bar
                counted = count(number, options.seconds)
            print(json.dumps(asdict(counted)) if options.as_json else row(counted), flush=True)


if __name__ == "__main__":
    main()
