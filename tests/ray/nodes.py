"""A cluster of several Ray nodes on this machine, whose nodes come and go while runs train: nodes.py PLACE

The names of scenarios come on standard input, and each is answered by a line of JSON: what was seen, or what went
wrong. A scenario leaves its run in PLACE/runs. It is a process of its own, since a process can be connected to one
Ray cluster only.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from functools import cache
from itertools import chain, count, groupby, islice
from pathlib import Path
from typing import Any, Self

# Warnings, and ends of runs, are looked for often: the runs are short. And a dashboard is looked for in vain at once.
os.environ["RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S"] = os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
os.environ["RAY_API_SERVER_ADDRESS"] = "http://127.0.0.1:1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray_runs import command, prepare, small_config, training_workers, write_squad

from qa_ray.config.fine_tuning import Config
from qa_ray.data.batching import plan_epoch
from qa_ray.data.pipeline import tokenize_split
from qa_ray.errors import StoppedError
from qa_ray.model.loading import learn_template, load_settings, load_tokenizer
from qa_ray.runs.driver import RunContext, train
from qa_ray.runs.stream import Restart, start_stream
from qa_ray.runs.worker import make_collator
from qa_ray.storage.checkpoint_store import MANIFEST
from qa_ray.tracking.metrics import Progress
from qa_ray.training.snapshot import enter

NAMES = [
    f"{name}{end}{s}" for name in ("An", "Ber", "Cla", "Do", "El", "Fri", "Ger") for end in "aeiouy" for s in "nst"
]
Sections = dict[str, dict[str, object]]
# Of one epoch: its end is the only step at which a checkpoint is due in any case.
RUN: Sections = {
    "model": {"dropout": 0.0},
    "train": {"epochs": 1},
    "evaluate": {"before_training": False},
    "tracking": {"enabled": False},
}
# Ray's own settings would notice a lost node after a quarter of a minute; one that is only slow has as long as there.
SYSTEM = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}


class Nodes:
    """A head without CPUs, and nodes with room for one worker each, all with addresses of their own."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": SYSTEM}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.workers: list[Any] = []
        self._num_added = 0
        self.fill()
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def fill(self) -> None:
        """Add nodes until there are two, each with room for a worker."""
        while len(self.workers) < 2:
            self._num_added += 1
            address = f"127.0.1.{self._num_added}"
            self.workers.append(self.cluster.add_node(num_cpus=1, node_ip_address=address))

    def kill(self, which: int = -1) -> float:
        """End a node without a warning, by default the newest; returns the time."""
        now = time.time()
        self.cluster.remove_node(self.workers.pop(which), allow_graceful=False)
        return now

    def warn(self, seconds: int) -> None:
        """Say that the newest node will be taken away after so many seconds, as a cloud does."""
        accepted, reason = GcsClient(address=self.cluster.address).drain_node(
            self.workers[-1].node_id,
            DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
            "spot capacity is needed elsewhere",
            int(1000 * (time.time() + seconds)),
        )
        assert accepted, reason

    def end(self) -> None:
        # At once: nodes would take half a minute to take their leave.
        ray.shutdown()
        while self.workers:
            self.kill()
        self.cluster.shutdown()


def main(place: Path) -> None:
    # Answers go where they are read; whatever else is printed goes to standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    prepare(place)
    write_squad(place / "train.json", NAMES)
    nodes = Nodes()
    try:
        for line in sys.stdin:
            nodes.fill()
            try:
                seen = SCENARIOS[line.strip()](nodes, place)
            except Exception:
                seen = {"failure": traceback.format_exc()}
            print(json.dumps(seen), file=answers)
    finally:
        nodes.end()


@cache
def train_calm(place: Path) -> None:
    """A run that nothing happens to, to compare the others with."""
    train(small_config(place, "calm", **RUN))


def node_dies(nodes: Nodes, place: Path) -> dict[str, Any]:
    """Another node takes its place."""
    train_calm(place)
    run = place / "runs" / "dies"
    with Training(small_config(place, "dies", **RUN, checkpoint={"every_steps": 2})) as training:
        training.wait_until(lambda: max(steps_saved(run), default=0) >= 4)
        step, killed_at = max(steps_saved(run)), nodes.kill()
        nodes.fill()
    return {"step": step, "killed_at": killed_at}


def node_leaves_and_returns(nodes: Nodes, place: Path) -> dict[str, Any]:
    """The run goes on with one worker, then with two again, and is stopped once that was seen."""
    name = "leaves-and-returns"
    run = place / "runs" / name
    changes = {
        "train.epochs": 1000,
        "model.dropout": 0.0,
        "checkpoint.every-steps": 10,
        "checkpoint.keep": 1000,
        "cluster.address": nodes.cluster.address,
        "cluster.num-workers": [1, 2],
        "cluster.elastic-interval-s": 1.0,
    }
    job = subprocess.Popen(command(place, name, changes), start_new_session=True)

    def wait_for(*sizes: int) -> None:
        while tuple(size for size, _ in groupby(world_sizes(run))) != sizes:
            assert job.poll() is None, "the run ended before what was waited for"
            time.sleep(0.05)

    try:
        wait_for(2)
        nodes.kill()
        wait_for(2, 1)
        nodes.fill()
        wait_for(2, 1, 2)
        job.terminate()
        code = job.wait()
    finally:
        job.kill()
    assert code == 128 + signal.SIGTERM
    states = [json.loads((folder / "state.json").read_text())["state"] for folder in saved(run)]
    ledgers = {state["step"]: state["ledger"] for state in states}
    planned = planned_ledgers(small_config(place, name), max(ledgers))
    return {"ledgers": [[ledgers[step], planned[step]] for step in ledgers]}


def node_comes(nodes: Nodes, place: Path) -> dict[str, Any]:
    """A run that began with one worker goes on with two in mid-epoch, and is stopped once they have made steps."""
    nodes.kill()
    config = small_config(
        place,
        "comes",
        **RUN,
        # No checkpoint is due before the end of the epoch, which has thousands of steps.
        data={"train": str(write_squad(place / "long.json", NAMES * 100))},
        checkpoint={"every_minutes": None, "keep": 1000},
        cluster={"num_workers": (1, 2), "elastic_interval_s": 1.0},
    )
    stream, begun, repeated, step = start_stream(), [], [], 0

    def observe(item: Progress | Restart) -> None:
        nonlocal step
        if isinstance(item, Restart):
            begun.append(item.step)
            repeated.append(step - item.step)
        step = item.step

    with Training(config, RunContext(stream=stream, observe=observe), ends_with=StoppedError) as training:
        training.wait_until(lambda: step > 0)
        nodes.fill()
        training.wait_until(lambda: len(begun) == 2 and step > begun[1] + 10)
        ray.get(stream.stop.remote())
    states = [json.loads((folder / "state.json").read_text()) for folder in saved(place / "runs" / "comes")]
    planned = planned_ledgers(config, states[-1]["state"]["step"])
    return {
        "begun": begun,
        "repeated": repeated,
        "world_sizes": [state["world_size"] for state in states],
        "ledgers": [[state["state"]["ledger"], planned[state["state"]["step"]]] for state in states],
    }


def planned_ledgers(config: Config, steps: int) -> dict[int, str]:
    """Ledger after each of the first steps, from the batch plan alone."""
    tokenizer = load_tokenizer(config.model)
    definition = tokenizer.backend_tokenizer.to_str()
    split = tokenize_split(config.data, config.data.train, max_examples=None, tokenizer=definition)
    template = learn_template(tokenizer, load_settings(config.model))
    lengths = make_collator(config, split.corpus(), template).windows.length
    ledgers, ledger = {}, ""
    epochs = (plan_epoch(lengths, config.batch, seed=config.train.seed, epoch=epoch) for epoch in count())
    batches = chain.from_iterable(plan.batches(0) for plan in epochs)
    for step, batch in enumerate(islice(batches, steps), start=1):
        ledger = ledgers[step] = enter(ledger, batch)
    return ledgers


def node_is_preempted(nodes: Nodes, place: Path) -> dict[str, Any]:
    """The warning comes while the workers start, and the node is gone once a checkpoint was seen."""
    train_calm(place)
    run = place / "runs" / "is-preempted"
    never: Sections = {"checkpoint": {"every_minutes": None, "keep": 1000}}
    with Training(small_config(place, "is-preempted", **RUN, **never)) as training:
        # Once they are there: nobody is placed on a node that was warned before.
        training.wait_until(lambda: len(training_workers()) == 2)
        nodes.warn(seconds=600)
        training.wait_until(lambda: steps_saved(run))
        killed_at = nodes.kill()
        nodes.fill()
    return {"steps": steps_saved(run), "killed_at": killed_at}


class Training:
    """A run in a thread: nodes are added from the main thread only."""

    def __init__(
        self, config: Config, context: RunContext | None = None, *, ends_with: type[BaseException] | None = None
    ) -> None:
        self.failures: list[BaseException] = []

        def work() -> None:
            try:
                train(config, context)
            except BaseException as error:
                if ends_with is not None and isinstance(error, ends_with):
                    return
                self.failures.append(error)
                raise

        self.thread = threading.Thread(target=work)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.thread.join()
        # What was waited for in vain says less than why the run ended.
        if self.failures:
            raise self.failures[0]

    def wait_until(self, holds: Callable[[], object]) -> None:
        while not holds():
            if not self.thread.is_alive():
                raise AssertionError("the run ended before what was waited for")
            time.sleep(0.05)


def saved(run: Path) -> Iterable[Path]:
    return sorted(path.parent for path in run.glob(f"checkpoints/*/{MANIFEST}"))


def steps_saved(run: Path) -> list[int]:
    return [int(folder.name.removeprefix("step-")) for folder in saved(run)]


def world_sizes(run: Path) -> list[int]:
    """Number of workers at each checkpoint."""
    return [json.loads((folder / "state.json").read_text())["world_size"] for folder in saved(run)]


SCENARIOS: dict[str, Callable[[Nodes, Path], dict[str, Any]]] = {
    "dies": node_dies,
    "leaves-and-returns": node_leaves_and_returns,
    "is-preempted": node_is_preempted,
    "comes": node_comes,
}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
