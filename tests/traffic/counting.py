"""Counts of messages and bytes, taken where they pass: at the stream, between the ranks, and in Ray's controller."""

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus

from qa_ray.runs.stream import Item, MetricStream
from qa_ray.tracking.node_metrics import NodeSample
from qa_ray.training.wishes import Wishes


class Kind(StrEnum):
    """Who says something to whom."""

    RECORDS = "records"
    """Rank 0 tells the stream how far training is, with its metrics."""
    SAMPLES = "samples"
    """One rank of each node tells the stream how busy the node is."""
    FETCHES = "fetches"
    """The driver takes both from the stream."""
    WISHES = "wishes"
    """Rank 0 asks the stream what is asked of the run."""
    DECISIONS = "decisions"
    """Rank 0 tells the others what it has decided."""
    POLLS = "polls"
    """Ray's controller asks every worker how it is."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Messages, a question and its answer being two, and the bytes of what is in them."""

    messages: int = 0
    bytes: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.messages + other.messages, self.bytes + other.bytes)

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.messages - other.messages, self.bytes - other.bytes)

    @classmethod
    def of_call(cls, question: object, answer: object = None) -> "Traffic":
        """One call of an actor."""
        return cls(2, size(question) + size(answer))

    @classmethod
    def on_loopback(cls) -> "Traffic":
        """All that this machine has sent to itself: packets, with the headers in their bytes."""
        (line,) = [line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")]
        received = line.split(":")[1].split()
        return cls(int(received[1]), int(received[0]))


def size(value: object) -> int:
    """Bytes of a value on its way to another process."""
    return len(cloudpickle.dumps(value))


class CountingStream(MetricStream):
    """The stream, and what passes through it."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: defaultdict[Kind, Traffic] = defaultdict(Traffic)

    def put(self, item: Item) -> None:
        self.count(Kind.RECORDS, Traffic.of_call(item))
        super().put(item)

    def put_sample(self, sample: NodeSample) -> None:
        self.count(Kind.SAMPLES, Traffic.of_call(sample))
        super().put_sample(sample)

    def take(self, limit: int | None = None) -> list[Item]:
        taken = super().take(limit)
        self.count(Kind.FETCHES, Traffic.of_call(limit, taken))
        return taken

    def take_samples(self) -> list[NodeSample]:
        taken = super().take_samples()
        self.count(Kind.FETCHES, Traffic.of_call(None, taken))
        return taken

    def wishes(self) -> Wishes:
        wishes = super().wishes()
        self.count(Kind.WISHES, Traffic.of_call(None, wishes))
        return wishes

    def count(self, kind: Kind, traffic: Traffic) -> None:
        """Count what passes elsewhere."""
        self._counts[kind] += traffic

    def counts(self) -> dict[Kind, Traffic]:
        """All that was counted so far."""
        return dict(self._counts)


class PollCounter(WorkerGroupCallback):
    """Sees in Ray's controller what each round of questions to the workers brings."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        statuses = worker_group_status.worker_statuses.values()
        self._stream.count.remote(Kind.POLLS, sum((Traffic.of_call(None, one) for one in statuses), Traffic()))
