"""A cluster of several Ray nodes on this machine, whose nodes come and go while a run trains: nodes.py SCENARIO PLACE

A scenario leaves its run, and an undisturbed one to compare it with, in PLACE/runs. It runs as a
process of its own, since a process can be connected to one Ray cluster only.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, Self

# Warnings are looked for often: the runs are short.
os.environ["RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S"] = "0.2"
sys.path.insert(0, str(Path(__file__).parents[1]))

import ray
from ray.cluster_utils import Cluster
from trips import command, prepare, trip_config, write_squad

from qa_ray.config import Config
from qa_ray.data.batching import plan_epoch
from qa_ray.data.pipeline import tokenize_split
from qa_ray.model import learn_template, load_tokenizer
from qa_ray.training.driver import train
from qa_ray.training.state import enter
from qa_ray.training.store import MANIFEST
from qa_ray.training.worker import make_collator

NAMES = [first + second for first in ("An", "Ber", "Cla", "Do", "El", "Fri", "Ger") for second in "aeiouy"]
# Three questions a name, in batches of four.
STEPS_PER_EPOCH = -(-3 * len(NAMES) // 4)
EVERY = 10
Sections = dict[str, dict[str, object]]
RUN: Sections = {
    "model": {"dropout": 0.0},
    "evaluate": {"before_training": False},
    "tracking": {"enabled": False},
}


class Nodes:
    """A head without CPUs, and nodes with room for one worker each."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.workers: list[Any] = []
        for _ in range(2):
            self.add()
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def add(self) -> None:
        self.workers.append(self.cluster.add_node(num_cpus=1))

    def kill(self) -> None:
        """End the newest node without a warning."""
        self.cluster.remove_node(self.workers.pop(), allow_graceful=False)

    def warn(self, seconds: int) -> None:
        """Say that the newest node will be taken away."""
        node = self.workers[-1].node_id
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot capacity is needed elsewhere"]
        deadline = ["--deadline-remaining-seconds", str(seconds)]
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.cluster.address]
        subprocess.run([*command, "--node-id", node, *reason, *deadline], check=True, capture_output=True)


def main(scenario: str, place: Path) -> None:
    prepare(place)
    write_squad(place / "train.json", NAMES)
    nodes = Nodes()
    try:
        SCENARIOS[scenario](nodes, place)
    finally:
        ray.shutdown()
        nodes.cluster.shutdown()


def node_dies(nodes: Nodes, place: Path) -> None:
    """Another node takes its place."""
    run = place / "runs" / "disturbed"
    sections = RUN | {"train": {"epochs": 2, "log_every": 1}}
    train(trip_config(place, "calm", **sections))
    with Training(place, sections | {"checkpoint": {"every_steps": 2}}) as training:
        training.wait_until(lambda: steps_saved(run) and max(steps_saved(run)) >= 4)
        nodes.kill()
        nodes.add()


def node_leaves_and_returns(nodes: Nodes, place: Path) -> None:
    """The run goes on with one worker, then with two again, and is stopped once that was seen."""
    run = place / "runs" / "disturbed"
    changes = {
        "train.epochs": 1000,
        "model.dropout": 0.0,
        "checkpoint.every-steps": EVERY,
        "checkpoint.keep": 1000,
        "cluster.address": nodes.cluster.address,
        "cluster.num-workers": [1, 2],
        "cluster.elastic-interval-s": 1.0,
    }
    job = subprocess.Popen(command(place, "disturbed", changes), start_new_session=True)

    def wait_for(*sizes: int) -> None:
        while tuple(size for size, _ in groupby(world_sizes(run))) != sizes:
            assert job.poll() is None, "the run ended before what was waited for"
            time.sleep(0.05)

    wait_for(2)
    nodes.kill()
    wait_for(2, 1)
    nodes.add()
    wait_for(2, 1, 2)
    job.terminate()
    assert job.wait() == 128 + signal.SIGTERM
    states = [json.loads((folder / "state.json").read_text())["state"] for folder in saved(run)]
    ledgers = {state["step"]: state["ledger"] for state in states}
    planned = planned_ledgers(trip_config(place, "disturbed"), max(ledgers))
    (place / "seen.json").write_text(json.dumps([[ledgers[step], planned[step]] for step in ledgers]))


def planned_ledgers(config: Config, steps: int) -> dict[int, str]:
    """Ledger after each of the first steps, from the batch plan alone."""
    tokenizer = load_tokenizer(config.model)
    definition = tokenizer.backend_tokenizer.to_str()
    split = tokenize_split(config.data, config.data.train, max_examples=None, tokenizer=definition)
    lengths = make_collator(config, split.corpus(), learn_template(tokenizer)).windows.length
    ledgers, ledger = {}, ""
    for step in range(1, steps + 1):
        epoch, position = divmod(step - 1, STEPS_PER_EPOCH)
        plan = plan_epoch(lengths, config.batch, seed=config.train.seed, epoch=epoch)
        ledger = ledgers[step] = enter(ledger, next(plan.batches(position)))
    return ledgers


def node_is_preempted(nodes: Nodes, place: Path) -> None:
    """The warning comes between two checkpoints."""
    run = place / "runs" / "disturbed"
    # Long enough to be warned in time: the command that warns takes seconds.
    sections = RUN | {"train": {"epochs": 10, "log_every": 1}}
    train(trip_config(place, "calm", **sections))
    planned: Sections = {"checkpoint": {"every_steps": EVERY, "every_minutes": None, "keep": 1000}}
    with Training(place, sections | planned) as training:
        training.wait_until(lambda: EVERY in steps_saved(run))
        nodes.warn(seconds=10)
        training.wait_until(lambda: unplanned(run))
        nodes.add()
    (place / "seen.json").write_text(json.dumps(unplanned(run)))


class Training:
    """A run in a thread: nodes are added from the main thread only."""

    def __init__(self, place: Path, sections: Sections) -> None:
        self.failures: list[BaseException] = []
        config = trip_config(place, "disturbed", **sections)

        def work() -> None:
            try:
                train(config)
            except BaseException as error:
                self.failures.append(error)
                raise

        self.thread = threading.Thread(target=work)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.thread.join()
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


def unplanned(run: Path) -> list[int]:
    """Steps that were saved though no checkpoint was due."""
    return [step for step in steps_saved(run) if step % EVERY and step % STEPS_PER_EPOCH]


SCENARIOS = {
    "dies": node_dies,
    "leaves-and-returns": node_leaves_and_returns,
    "is-preempted": node_is_preempted,
}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
