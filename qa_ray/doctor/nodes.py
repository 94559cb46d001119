"""Ask every node of the cluster a question, by a Ray task pinned to it, and wait only so long."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qa_ray.doctor.verdict import Verdict, failed, told
from qa_ray.errors import UserError

T = TypeVar("T")

DRIVER = "the driver"
"""This process among the places that are asked."""
_CURE = "do there what it says; model and data must be where every node sees them alike: shared storage, a URI, the Hub"
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


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What each place has answered, and in words why others have not."""

    values: Mapping[str, T]
    failures: Mapping[str, str]

    def judged(self, judge: Callable[[Mapping[str, T]], Verdict]) -> Verdict:
        """Judge what all have answered, or tell which have not."""
        return failed(told(self.failures), _CURE) if self.failures else judge(self.values)


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
            resources, address, node_id = node["Resources"], node["NodeManagerAddress"], node["NodeID"]
            name = address if addresses.count(address) == 1 else f"{address}/{node_id[:6]}"
            found.append(Node(node_id, name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0))))
        return cls(tuple(node for node in found if node.cpus or node.gpus), patience_s)

    def ask(self, question: Callable[..., T], *arguments: Any, driver: bool = False) -> Answers[T]:
        """Call a function on every node and, with `driver`, in this process too."""
        asked = {node.name: arguments for node in self.all}
        return self.ask_each(question, asked | ({DRIVER: arguments} if driver else {}))

    def ask_each(self, question: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> Answers[T]:
        """Call a function of an importable module in the named places at once, each with arguments of its own.

        A place that does not answer in time is left alone: what it is busy with is cancelled.
        """
        strategies = {node.name: NodeAffinitySchedulingStrategy(node.id, soft=False) for node in self.all}
        pinned = {
            name: _call.options(scheduling_strategy=strategy).remote(question, arguments[name])
            for name, strategy in strategies.items()
            if name in arguments
        }
        late = (None, f"no answer within {self.patience_s:g} s")
        answers: dict[str, tuple[Any, str | None]] = {}
        if DRIVER in arguments:
            answers[DRIVER] = in_time(lambda: answer(question, arguments[DRIVER]), self.patience_s) or late
        asked = list(pinned.values())
        ready = set(ray.wait(asked, num_returns=len(asked), timeout=self.patience_s)[0] if asked else [])
        for name, reference in pinned.items():
            answers[name] = answer(ray.get, (reference,)) if reference in ready else late
            if reference not in ready:
                ray.cancel(reference, force=True)
        failures = {name: failure for name, (_, failure) in answers.items() if failure is not None}
        return Answers({name: value for name, (value, _) in answers.items() if name not in failures}, failures)


@ray.remote(num_cpus=0, max_retries=0)
def _call(question: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    return question(*arguments)


def answer(question: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[T | None, str | None]:
    """Call a function; returns its value, or in words why there is none."""
    try:
        return question(*arguments), None
    # Whatever it is, it is this place's answer, and the others are asked on.
    except Exception as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        words = " ".join(str(cause).split())
        if isinstance(cause, UserError):
            return None, words
        # A traceback ends with what matters.
        cut = words if len(words) <= _LONGEST_REASON else f"... {words[-_LONGEST_REASON:]}"
        return None, f"{type(cause).__name__}: {cut}"


def in_time(action: Callable[[], T], seconds: float) -> T | None:
    """Call `action` in a thread of its own; None if it has not returned in time, and nobody waits for it further."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(action()), daemon=True)
    try:
        thread.start()
        thread.join(seconds)
    except BaseException:
        # Interrupted: what it has written is still to be deleted.
        if thread.is_alive():
            thread.join(_LAST_SECONDS)
        raise
    return results[0] if results else None
