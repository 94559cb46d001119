"""What came of the kills: a table, and whether recovery keeps what it promises."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from ray_runs import outcome_of

from chaos.checkpoints import Damage


class Victim(StrEnum):
    """Who is killed."""

    WORKER = "worker"
    """The process of one rank."""
    JOB = "job"
    """The driver's process, which is started again with the same command."""
    NODE = "node"
    """A Ray node with all its processes; a new one takes its place."""


class Moment(StrEnum):
    """What the run was seen to do when the kill came."""

    START = "start"
    """The job or its workers are starting, for the first time or again."""
    STEPS = "steps"
    WRITING = "writing"
    STORING = "storing"
    EVALUATION = "evaluation"


@dataclass(slots=True)
class Kill:
    """One kill, and what came of it."""

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
    differing: list[str]
    """What is not as in the reference run; all that is compared if the run did not finish."""
    notes: list[str]
    """What helps to find out why."""

    @classmethod
    def of(cls, run: Path, failure: list[str], reference: dict[str, Any]) -> "RunEnd":
        """Compare what a run left with the reference; `failure` says why it did not end, if it did not."""
        if failure:
            return cls(run.name, list(reference), failure)
        try:
            outcome = outcome_of(run)
        except (OSError, ValueError, KeyError) as error:
            return cls(run.name, list(reference), [f"it ended well, but {type(error).__name__}: {error}"])
        notes = [
            f"{mine} instead of {other}"
            for mine, other in zip(outcome["metrics"], reference["metrics"], strict=False)
            if mine != other
        ]
        return cls(run.name, [name for name in reference if outcome[name] != reference[name]], notes[:3])


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
        head = ["killed in", *Moment, "all", "median time to the next step"]
        lines = [head, ["---"] * len(head), *map(self._row, Victim)]
        equal = sum(not run.differing for run in self.runs)
        return "\n".join(
            [
                *(f"| {' | '.join(cells)} |" for cells in lines),
                f"recovered: {sum(kill.recovered for kill in self.kills)} of {len(self.kills)} kills",
                f"weights, predictions, metrics and batches as in the reference run: {equal} of {len(self.runs)} runs",
                f"steps done again: {self.steps_again}",
                f"checkpoints: {self.damaged} damaged; {self.loaded} loaded, of which {self.loaded_whole} were found "
                f"whole and {self.loaded_damaged} damaged",
                *(f"{promise}: {times}" for promise, times in self.broken_promises().items()),
                *(f"{run.name}: {note}" for run in self.runs for note in [*run.differing, *run.notes]),
            ]
        )

    def _row(self, victim: Victim) -> list[str]:
        kills = [kill for kill in self.kills if kill.victim is victim]
        counts = [sum(kill.moment is moment for kill in kills) for moment in Moment]
        seconds = [kill.seconds for kill in kills if kill.seconds is not None]
        return [victim, *map(str, [*counts, len(kills)]), f"{median(seconds):.0f} s" if seconds else ""]
