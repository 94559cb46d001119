"""Ask every node of the cluster a question, by a Ray task pinned to it, and wait only so long."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qa_ray.doctor.clock import Reading
from qa_ray.errors import UserError

T = TypeVar("T")

DRIVER = "the driver"
"""This process among the places that are asked."""
_NUM_READINGS = 3
_LONGEST_REASON = 300
_LAST_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Node:
    """A node that may hold workers."""

    id: str
    name: str
    """Its address, with a part of its id where several nodes share one."""
    cpus: int
    gpus: int
    memory: float
    """Bytes that Ray counts for tasks and actors."""
    object_store: float
    """Bytes of the node's shared object store."""
    session: str
    """Folder of the Ray session on its disk, where objects that do not fit are spilled."""


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What each place has answered, and in words why others have not."""

    values: Mapping[str, T]
    failures: Mapping[str, str]


class Nodes:
    """The nodes of the cluster that this process is connected to."""

    def __init__(self, nodes: tuple[Node, ...], patience_s: float) -> None:
        """Take nodes that answer within `patience_s` seconds, or not at all."""
        self.all = nodes
        self.patience_s = patience_s

    @classmethod
    def joined(cls, patience_s: float) -> Self:
        """The nodes with CPUs or GPUs; one without, such as a head that only directs, gets no work."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        addresses = [node["NodeManagerAddress"] for node in alive]
        found = []
        for node in alive:
            resources, address = node["Resources"], node["NodeManagerAddress"]
            if not resources.get("CPU") and not resources.get("GPU"):
                continue
            found.append(
                Node(
                    id=node["NodeID"],
                    name=address if addresses.count(address) == 1 else f"{address}/{node['NodeID'][:6]}",
                    cpus=int(resources.get("CPU", 0)),
                    gpus=int(resources.get("GPU", 0)),
                    memory=resources.get("memory", 0.0),
                    object_store=resources.get("object_store_memory", 0.0),
                    session=str(Path(node["ObjectStoreSocketName"]).parent.parent),
                )
            )
        return cls(tuple(found), patience_s)

    def only(self, names: Mapping[str, object]) -> "Nodes":
        """These of the nodes."""
        return Nodes(tuple(node for node in self.all if node.name in names), self.patience_s)

    def ask(self, question: Callable[..., T], *arguments: Any, driver: bool = False) -> Answers[T]:
        """Call a function on every node and, with `driver`, in this process too."""
        asked = {node.name: arguments for node in self.all}
        return self.ask_each(question, asked | ({DRIVER: arguments} if driver else {}))

    def ask_each(self, question: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> Answers[T]:
        """Call a function of an importable module in the named places, each with arguments of its own.

        A place that does not answer in time is left alone: what it is busy with is cancelled.
        """
        pinned = {
            node.name: _answer.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
                question, arguments[node.name]
            )
            for node in self.all
            if node.name in arguments
        }
        late = f"no answer within {self.patience_s:g} s"
        values: dict[str, T] = {}
        failures: dict[str, str] = {}
        deadline = time.monotonic() + self.patience_s
        if DRIVER in arguments:
            own = in_time(lambda: answer(question, arguments[DRIVER]), self.patience_s)
            _sort_in(DRIVER, own or (None, late), values, failures)
        ready, _ = (
            ray.wait(list(pinned.values()), num_returns=len(pinned), timeout=max(deadline - time.monotonic(), 1.0))
            if pinned
            else ([], [])
        )
        for name, reference in pinned.items():
            if reference in ready:
                _sort_in(name, _received(reference), values, failures)
            else:
                ray.cancel(reference, force=True)
                failures[name] = late
        return Answers(values, failures)

    def read_clocks(self) -> dict[str, list[Reading]]:
        """Read each node's clock a few times, one after the other; those that do not answer are left out."""
        readings: dict[str, list[Reading]] = {}
        for node in self.all:
            for _ in range(_NUM_READINGS):
                asked = time.time()
                told = self.ask_each(time.time, {node.name: ()}).values.get(node.name)
                if told is None:
                    break
                readings.setdefault(node.name, []).append(Reading(asked, told, time.time()))
        return readings


def answer(question: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[T | None, str | None]:
    """Call a function; returns its value, or in words why there is none."""
    try:
        return question(*arguments), None
    except UserError as error:
        return None, str(error)
    # Whatever it is, it is this place's answer, and the others are asked on.
    except Exception as error:
        return None, reason(error)


def reason(error: BaseException) -> str:
    """What an error says, in one line and with its kind."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_REASON]


def in_time(action: Callable[[], T], seconds: float) -> T | None:
    """Call `action` in a thread of its own; None if it has not returned in time, and nobody waits for it further."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(action()), daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    except BaseException:
        # Interrupted: what it has written is still to be deleted.
        thread.join(_LAST_SECONDS)
        raise
    return results[0] if results else None


@ray.remote(num_cpus=0, max_retries=0)
def _answer(question: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, str | None]:
    return answer(question, arguments)


def _received(reference: Any) -> tuple[Any, str | None]:
    try:
        received: tuple[Any, str | None] = ray.get(reference)
    except RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        # A traceback ends with what matters.
        return None, f"its Ray worker failed: {lines[-1].strip() if lines else type(error).__name__}"[:_LONGEST_REASON]
    return received


def _sort_in(name: str, received: tuple[Any, str | None], values: dict[str, Any], failures: dict[str, str]) -> None:
    value, failure = received
    if failure is None:
        values[name] = value
    else:
        failures[name] = failure


def asks_for_token() -> bool:
    """Whether this process, and so the cluster that took it, uses Ray's token authentication."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
