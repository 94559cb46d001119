"""Kill a sweep, its trials, its workers and its nodes at random moments, and see whether it ends as if undisturbed.

make chaos-sweep
make chaos-sweep ARGS='--kills 20 --seed 1'

Two trials run at once on a local cluster of two nodes. The sweep is started again whenever it is gone.
"""

import itertools
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tyro
from ray_runs import command

from chaos.cluster import Nodes, start_nodes
from chaos.run import CHANGES, make_inputs
from qa_ray.cli.execution import exit_code
from qa_ray.errors import TrainingError

_VICTIMS = ("sweep", "trial", "worker", "node")
_TITLES = {"trial": "ResourceTr", "worker": "RayTrainWo"}
_LONGEST_PAUSE_S = 40.0
_SEARCH = [
    *("--tune.sampler", "random", "--tune.scheduler", "none", "--tune.max-failures", "1000"),
    *("--space", "optim.learning_rate=loguniform(1e-4, 1e-2)", "window.stride=choice(16, 32, 64)"),
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Kill a sweep at random moments, and see whether it ends as if undisturbed."""

    kills: int = 10
    """Kills, of the sweep's job, a trial, a worker and a node in turns."""
    trials: int = 8
    """Trials of the sweep; it must be long enough for all kills."""
    seed: int = 0
    """Decides the pauses between kills, and who of several is killed."""


def main() -> None:
    """Run two sweeps, and compare them.

    Raises:
        TrainingError: they differ, or the sweep was over too early.
    """
    options = tyro.cli(Options, prog="chaos-sweep")
    with start_nodes() as (place, nodes):
        make_inputs(place)
        expected = _sweep(nodes, place, "undisturbed", options, kills=0)
        found = _sweep(nodes, place, "killed", options, kills=options.kills)
    for before, after in itertools.zip_longest(expected, found):
        print("same" if before == after else f"differs: {before}\n     not {after}")
    if expected != found:
        raise TrainingError("the sweep that was killed has other trials or scores, see above")


def _sweep(nodes: Nodes, place: Path, name: str, options: Options, kills: int) -> list[dict[str, Any]]:
    """Run a sweep to its end, starting it again whenever it was killed; returns its trials."""
    rng = random.Random(options.seed)
    begin, job = time.monotonic(), _start(nodes, place, name, options)
    for number, victim in zip(range(kills), itertools.cycle(_VICTIMS), strict=False):
        pause = rng.uniform(0, _LONGEST_PAUSE_S)
        time.sleep(pause)
        if job.poll() == 0:
            raise TrainingError(f"the sweep was over after {number} kills: give it more --trials")
        ended = len(list((place / "runs" / name).glob("trials/*/result.json")))
        print(f"kill {number + 1}: {victim} after {pause:.1f} s, {ended} trials have ended", flush=True)
        _kill(victim, nodes, job, rng)
        # It may have been driven from the node that is lost.
        job = job if job.poll() is None else _start(nodes, place, name, options)
    if job.wait():
        print((place / f"{name}.txt").read_text(encoding="utf-8")[-2000:])
        raise TrainingError(f"the sweep {name} has failed, see above")
    print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    records = json.loads((place / "runs" / name / "trials.json").read_text(encoding="utf-8"))
    return [{field: record[field] for field in ("parameters", "status", "evaluations")} for record in records]


def _start(nodes: Nodes, place: Path, name: str, options: Options) -> subprocess.Popen[bytes]:
    changes = CHANGES | {"cluster.address": nodes.address, "cluster.num-workers": 1, "train.epochs": 2}
    python, _, *words = command(place, name, changes)
    script = str(Path(__file__).parents[2] / "jobs" / "tune.py")
    with (place / f"{name}.txt").open("ab") as said:
        return subprocess.Popen(
            [python, script, *words, "--tune.num-trials", str(options.trials), *_SEARCH],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def _kill(victim: str, nodes: Nodes, job: subprocess.Popen[bytes], rng: random.Random) -> None:
    if victim == "sweep":
        job.kill()
        job.wait()
    elif victim == "node":
        nodes.kill(rng.randrange(len(nodes)))
    else:
        processes: list[psutil.Process] = nodes.processes(_TITLES[victim])
        if processes:
            rng.choice(processes).kill()


if __name__ == "__main__":
    sys.exit(exit_code(main))
