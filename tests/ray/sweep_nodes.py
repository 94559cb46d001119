"""A sweep that loses a node of its workers, then its own node and its driver, and goes on: sweep_nodes.py PLACE

The sweep is left in PLACE/runs, and what was seen in PLACE/seen.json. It is a process of its own, see nodes.py.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nodes import NAMES, Nodes, planned_ledgers, steps_saved
from ray_runs import command, prepare, processes, small_config, write_squad

HERE = Path(__file__)
NAME = "sweep"
# Three questions a name, in batches of four.
STEPS_PER_EPOCH = -(-3 * len(NAMES) // 4)


def main(place: Path) -> None:
    prepare(place)
    write_squad(place / "train.json", NAMES)
    nodes = Nodes()
    try:
        seen = lose_nodes(nodes, place)
    finally:
        nodes.end()
    (place / "seen.json").write_text(json.dumps(seen))


def lose_nodes(nodes: Nodes, place: Path) -> dict[str, Any]:
    """The first trial loses a node that it trains on, the second the node that the sweep and it are driven from."""
    trials = place / "runs" / NAME / "trials"
    with (place / "sweep.txt").open("w") as said:
        job = start(nodes, place, said)
        try:
            first = wait_for_checkpoint(trials / "trial-000", job), nodes.kill()
            nodes.fill()
            step = wait_for_checkpoint(trials / "trial-001", job)
            [home] = {process.ppid() for process in processes("ResourceTr")}
            together = home == nodes.workers[0].all_processes["raylet"][0].process.pid
            second = step, nodes.kill(0)
        finally:
            # It goes down with its node.
            job.kill()
        nodes.fill()
        last = start(nodes, place, said)
        try:
            code = last.wait()
        finally:
            last.kill()
    planned = planned_ledgers(small_config(place, NAME), STEPS_PER_EPOCH)[STEPS_PER_EPOCH]
    return {
        "code": code,
        "losses": {"trial-000": first, "trial-001": second},
        "lost_with_its_node": together,
        "ledger": planned,
        "num_steps": STEPS_PER_EPOCH,
    }


def start(nodes: Nodes, place: Path, said: Any) -> subprocess.Popen[bytes]:
    """Start the sweep on the oldest node, or go on with it there."""
    changes = {
        "train.epochs": 1,
        "checkpoint.every-steps": 2,
        "cluster.address": nodes.cluster.address,
    }
    python, _, *arguments = command(place, NAME, changes)
    options = ["--tune.num-trials", "2", "--tune.sampler", "random", "--tune.scheduler", "none"]
    space = ["--space", "optim.learning_rate=loguniform(1e-4, 1e-2)"]
    script = HERE.parents[2] / "jobs" / "tune.py"
    on_node = [python, str(HERE.with_name("on_node.py")), nodes.workers[0].node_ip_address]
    return subprocess.Popen([*on_node, str(script), *arguments, *options, *space], stdout=said, stderr=said)


def wait_for_checkpoint(trial: Path, job: subprocess.Popen[bytes]) -> int:
    """Wait until a trial has trained for some steps; returns its last checkpoint's step."""
    while max(steps_saved(trial), default=0) < 4:
        assert job.poll() is None, "the sweep ended before what was waited for"
        time.sleep(0.01)
    return max(steps_saved(trial))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
