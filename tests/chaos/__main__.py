"""Hit small training runs in many ways, and see whether they end as if nothing had happened.

make chaos
make chaos ARGS='--kills 200'

Workers, jobs and nodes are killed, devices run out of memory, a tracking server goes and comes, and so do nodes of
elastic runs. The seed decides what is hit, in what and with what damage; the instant within a moment depends on the
machine too.
"""

import itertools
import random
import sys
from dataclasses import dataclass

import tyro

from chaos.checkpoints import Damage
from chaos.cluster import start_nodes
from chaos.injector import FaultInjector
from chaos.report import Kill, Moment, Report, Victim
from qa_ray.cli.execution import exit_code
from qa_ray.errors import TrainingError, require


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hit small training runs in many ways, and see whether they end as if nothing had happened."""

    kills: int = 20
    """Kills and other faults, spread evenly over all pairs of victim and moment."""
    victims: tuple[Victim, ...] = tuple(Victim)
    """What is killed, or hit otherwise."""
    moments: tuple[Moment, ...] = tuple(Moment)
    """What the run does when it is hit."""
    epochs: int = 5
    """Epochs of each run; runs follow one another until all kills are done."""
    seed: int = 0
    """Decides who is killed in what, and with what damage."""

    def __post_init__(self) -> None:
        for name in ("kills", "epochs"):
            require(getattr(self, name) > 0, f"--{name}={getattr(self, name)} must be above 0")
        for name in ("victims", "moments"):
            require(bool(getattr(self, name)), f"--{name} is empty: name at least one")
        require(bool(self.pairs), "--victims cannot be hit in any of --moments: name others")

    @property
    def pairs(self) -> list[tuple[Victim, Moment]]:
        """What is hit, in what."""
        pairs = itertools.product(self.victims, self.moments)
        return [(victim, moment) for victim, moment in pairs if victim.suffers_in(moment)]


def main() -> None:
    """Inject, and print the report.

    Raises:
        TrainingError: a promise of recovery is broken.
    """
    report = inject(tyro.cli(Options, prog="chaos", config=(tyro.conf.EnumChoicesFromValues,)))
    print(report.text())
    if any(report.broken_promises().values()):
        raise TrainingError("recovery broke its promises, see above")


def inject(options: Options) -> Report:
    """Start a cluster, do all kills, and tell what came of them."""
    with start_nodes() as (place, nodes):
        injector = FaultInjector(place, nodes, plan(options), epochs=options.epochs, seed=options.seed)
        injector.work()
        return injector.report


def plan(options: Options) -> list[Kill]:
    """Who is killed in what: every pair about equally often, in random order; half of the jobs with damage."""
    rng = random.Random(options.seed)
    pairs: list[tuple[Victim, Moment]] = []
    while len(pairs) < options.kills:
        turn = options.pairs
        rng.shuffle(turn)
        pairs += turn
    kills = [Kill(victim, moment) for victim, moment in pairs[: options.kills]]
    damages = itertools.cycle(Damage)
    for kill in [kill for kill in kills if kill.victim is Victim.JOB][::2]:
        kill.damage = next(damages)
    return kills


if __name__ == "__main__":
    sys.exit(exit_code(main))
