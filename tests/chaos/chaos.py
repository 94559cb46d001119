"""A benchmark of recovery: workers, jobs and nodes are killed at random moments, and the runs must end undisturbed.

The seed decides who is killed, in what and with what damage; the instant within a moment depends on the machine too.
"""

import contextlib
import json
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarking.chaos_cluster import Nodes, use_folder
from benchmarking.chaos_disturber import Disturber
from benchmarking.chaos_inputs import SETTINGS, make_arguments
from benchmarking.chaos_outcome import Damage
from benchmarking.chaos_report import Kill, Moment, Victim
from benchmarking.comparison import machine
from qa_ray.errors import ConfigError, StorageError, TrainingError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Kill workers, jobs and nodes of small training runs, and see whether the runs end as if nothing had happened."""

    kills: int = 100
    """Kills, spread evenly over all pairs of victim and moment."""
    victims: tuple[Victim, ...] = tuple(Victim)
    """Who is killed."""
    moments: tuple[Moment, ...] = tuple(Moment)
    """What the run does when the kill comes."""
    epochs: int = 5
    """Epochs of each run; runs follow one another until all kills are done."""
    seed: int = 0
    """Decides who is killed in what, and with what damage."""
    limit_minutes: float = 60.0
    """Minutes after which nobody is killed any more: the run under way is finished, and the report says so."""
    out: Path = Path("chaos.json")
    """File that takes the results."""

    def __post_init__(self) -> None:
        for name in ("kills", "epochs", "limit_minutes"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"--{name.replace('_', '-')}={getattr(self, name)} must be above 0")
        for name in ("victims", "moments"):
            if not getattr(self, name):
                raise ConfigError(f"--{name} is empty: name at least one")


def chaos(options: Options) -> None:
    """Measure, print a report and write it.

    Raises:
        StorageError: the results cannot be written.
        TrainingError: a promise of recovery is broken.
    """
    try:
        options.out.touch()
    except OSError as error:
        raise StorageError(f"--out={options.out} cannot be written: {error.strerror}") from error
    # A terminated benchmark cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = time.monotonic()
    with _folder() as place, Nodes(place) as nodes:
        arguments = make_arguments(place, address=nodes.address, runs=place / "runs", epochs=options.epochs)
        disturber = Disturber(place, nodes, arguments, plan(options), seed=options.seed)
        try:
            disturber.work(begin + 60 * options.limit_minutes)
        finally:
            disturber.end()
    report = disturber.report
    facts: dict[str, Any] = {"machine": machine(), "options": asdict(options) | {"out": str(options.out)}}
    facts |= {"settings": SETTINGS, "minutes": (time.monotonic() - begin) / 60, "cut_short": disturber.cut_short}
    options.out.write_text(json.dumps(facts | report.as_dict(), indent=1) + "\n", encoding="utf-8")
    print(report.text())
    if disturber.cut_short:
        print(f"cut short after {options.limit_minutes:g} minutes: {len(report.kills)} of {options.kills} kills done")
    print(f"written to {options.out}")
    broken = {promise: times for promise, times in report.broken_promises().items() if times}
    if broken:
        raise TrainingError(f"recovery broke its promises: {broken}")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        use_folder(place)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def plan(options: Options) -> list[Kill]:
    """Who is killed in what: every pair about equally often, in random order; half of the drivers with damage."""
    rng = random.Random(options.seed)
    pairs: list[tuple[Victim, Moment]] = []
    while len(pairs) < options.kills:
        turn = list(product(options.victims, options.moments))
        rng.shuffle(turn)
        pairs += turn
    kills = [Kill(victim, moment) for victim, moment in pairs[: options.kills]]
    for number, kill in enumerate(kill for kill in kills if kill.victim is Victim.DRIVER):
        kill.damage = list(Damage)[number // 2 % len(Damage)] if number % 2 == 0 else None
    return kills
