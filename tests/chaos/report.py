"""What came of the kills: a table, and whether recovery keeps what it promises."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from ray_runs import outcome_of

from chaos.checkpoints import Damage


class Setting(StrEnum):
    """How a run is set up."""

    FIXED = "two workers"
    TRACKED = "two workers and a tracking server"
    ELASTIC = "one or two workers"


class Victim(StrEnum):
    """What is killed, or hit otherwise."""

    WORKER = "worker"
    """The process of one rank."""
    JOB = "job"
    """The driver's process, which is started again with the same command."""
    NODE = "node"
    """A Ray node with all its processes; a new one takes its place."""
    MEMORY = "memory"
    """The memory of a rank's device, which does not suffice once."""
    SERVER = "server"
    """The tracking server, which comes back after some seconds."""
    SIZE = "size"
    """The number of an elastic run's nodes: one of two is killed, or a second one comes."""

    @property
    def setting(self) -> Setting:
        """The runs that it is hit in."""
        return {Victim.SERVER: Setting.TRACKED, Victim.SIZE: Setting.ELASTIC}.get(self, Setting.FIXED)

    @property
    def lasts(self) -> bool:
        """Whether the workers outlive it: it is recovered from by the next step, without a new group of them."""
        return self in (Victim.MEMORY, Victim.SERVER)

    def suffers_in(self, moment: "Moment") -> bool:
        """Whether it can be hit in a moment: a run that starts needs its server, and memory is short in steps."""
        if self is Victim.MEMORY:
            return moment in (Moment.STEPS, Moment.STORING)
        return moment in (Moment.STEPS, Moment.STORING, Moment.EVALUATION) or self.setting is Setting.FIXED


_SAME = "weights, predictions, metrics and batches as in the reference run"
_COMPARED = {
    Setting.FIXED: _SAME,
    Setting.TRACKED: f"{_SAME}, and each point once in MLflow",
    # Sums of other numbers of workers have other last bits.
    Setting.ELASTIC: "each batch of the plan once, in its order",
}


class Moment(StrEnum):
    """What the run was seen to do when it was hit."""

    START = "start"
    """The job or its workers are starting, for the first time or again."""
    STEPS = "steps"
    WRITING = "writing"
    STORING = "storing"
    EVALUATION = "evaluation"


@dataclass(slots=True)
class Kill:
    """One kill, or another fault, and what came of it."""

    victim: Victim
    moment: Moment
    damage: Damage | None = None
    """What is done to the newest checkpoint before the job is started again."""
    at: float = 0.0
    """Seconds since 1970."""
    recovered: bool = False
    """Whether the run went on or ended well."""
    seconds: float | None = None
    """To the next step; None if there was none left, or if the run was hit again before it."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended."""

    name: str
    setting: Setting
    differing: list[str]
    """What is not as in the reference run; all that is compared if the run did not finish."""
    notes: list[str]
    """What helps to find out why."""

    @classmethod
    def of(
        cls,
        run: Path,
        failure: list[str],
        reference: dict[str, Any],
        *,
        setting: Setting = Setting.FIXED,
        outcome: Callable[[Path], dict[str, Any]] = outcome_of,
    ) -> "RunEnd":
        """Compare what a run left, by `outcome`, with the reference; `failure` says why it did not end, if so."""
        if failure:
            return cls(run.name, setting, list(reference), failure)
        try:
            found = outcome(run)
        except (OSError, ValueError, KeyError) as error:
            return cls(run.name, setting, list(reference), [f"it ended well, but {type(error).__name__}: {error}"])
        notes = [
            f"{mine} instead of {other}"
            for mine, other in zip(found.get("metrics", ()), reference.get("metrics", ()), strict=False)
            if mine != other
        ]
        return cls(run.name, setting, [name for name in reference if found[name] != reference[name]], notes[:3])


@dataclass(slots=True)
class Report:
    """All that happened."""

    kills: list[Kill] = field(default_factory=list)
    runs: list[RunEnd] = field(default_factory=list)
    steps_again: int = 0
    """Steps done again, but for the last second's before a job was killed."""
    loaded: int = 0
    """Times that workers went on from a checkpoint."""
    loaded_whole: int = 0
    """Of them, from one that was found whole; an old one may be pruned before it is looked at."""
    loaded_damaged: int = 0
    damaged: int = 0
    """Checkpoints that were damaged."""
    passed_over: int = 0
    """Times that a run did not go on from the newest whole checkpoint after one was damaged."""

    def broken_promises(self) -> dict[str, int]:
        """How often each promise was broken."""
        return {
            "kills not recovered": sum(not kill.recovered for kill in self.kills),
            "runs that did not end as the reference run": sum(bool(run.differing) for run in self.runs),
            "damaged checkpoints loaded": self.loaded_damaged,
            "whole checkpoints passed over": self.passed_over,
        }

    def text(self) -> str:
        """The report for people, with a table in Markdown."""
        head = ["hit in", *Moment, "all", "median time to the next step"]
        lines = [head, ["---"] * len(head), *map(self._row, Victim)]
        return "\n".join(
            [
                *(f"| {' | '.join(cells)} |" for cells in lines),
                f"recovered: {sum(kill.recovered for kill in self.kills)} of {len(self.kills)} kills and other faults",
                *(self._equal(setting) for setting in Setting if any(run.setting is setting for run in self.runs)),
                f"steps done again: {self.steps_again}",
                f"checkpoints: {self.damaged} damaged; {self.loaded} loaded, of which {self.loaded_whole} were found "
                f"whole and {self.loaded_damaged} damaged",
                *(f"{promise}: {times}" for promise, times in self.broken_promises().items()),
                *(f"{run.name}: {note}" for run in self.runs for note in [*run.differing, *run.notes]),
            ]
        )

    def _equal(self, setting: Setting) -> str:
        runs = [run for run in self.runs if run.setting is setting]
        return f"{_COMPARED[setting]}: {sum(not run.differing for run in runs)} of {len(runs)} runs with {setting}"

    def _row(self, victim: Victim) -> list[str]:
        kills = [kill for kill in self.kills if kill.victim is victim]
        counts = [sum(kill.moment is moment for kill in kills) for moment in Moment]
        seconds = [kill.seconds for kill in kills if kill.seconds is not None]
        return [victim, *map(str, [*counts, len(kills)]), f"{median(seconds):.0f} s" if seconds else ""]
