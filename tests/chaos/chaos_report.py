"""What the chaos benchmark has to tell: each kill, each run, and whether recovery keeps what it promises."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from benchmarking.chaos_outcome import Damage, Expected, Outcome


class Victim(StrEnum):
    """Who is killed."""

    WORKER = "worker"
    """The process of one rank."""
    DRIVER = "driver"
    """The process of the job, which is started again with the same command."""
    NODE = "node"
    """A Ray node with all its processes; a new one takes its place."""


class Moment(StrEnum):
    """What the run was seen to do when the kill came."""

    START = "start"
    """The job or its workers are starting, for the first time or again."""
    STEPS = "steps"
    """It trains."""
    WRITE = "write"
    """A checkpoint is being written to the worker's disk."""
    UPLOAD = "upload"
    """A checkpoint is being copied to the run's storage; training goes on meanwhile."""
    EVALUATION = "evaluation"
    """It is evaluated."""


@dataclass(slots=True)
class Kill:
    """One kill, and what came of it."""

    victim: Victim
    moment: Moment
    damage: Damage | None = None
    """What is done to the newest checkpoint before the job is started again."""
    run: str | None = None
    """The run that was hit; None until then."""
    at: float = 0.0
    """Monotonic clock."""
    step: int = 0
    """Newest step that was known."""
    damaged: str | None = None
    """The checkpoint that was damaged."""
    known: bool = False
    """Whether `newest` is known, since nobody could write a checkpoint any more."""
    newest: str | None = None
    """The newest whole checkpoint after the kill and the damage."""
    recovered: bool = False
    """Whether the run went on or ended well."""
    resumed: str | None = None
    """Checkpoint from which the run went on; None if it began anew or had ended."""
    followed: bool = False
    """Whether workers began after it."""
    hit_again: bool = False
    """Whether the run was hit once more before its next step."""
    again: int = 0
    """Steps done again."""
    seconds: float | None = None
    """From the kill to the next step; None if it was killed after the last step."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a disturbed run ended."""

    name: str
    finished: bool
    differing: list[str]
    """What is not as in the undisturbed run."""
    wrong_windows: int
    """Windows lost or seen twice."""
    notes: list[str]
    """What helps to find out why."""

    @classmethod
    def of(cls, run: Path, failure: list[str], calm: Outcome, expected: Expected) -> "RunEnd":
        """Compare what a run left with what it should have left; `failure` says why it did not end, if it did not."""
        if failure:
            return cls(run.name, finished=False, differing=[], wrong_windows=0, notes=failure)
        try:
            outcome = Outcome.read(run)
        except (OSError, ValueError, KeyError) as error:
            return cls(run.name, False, [], 0, [f"it says that it is finished, but {type(error).__name__}: {error}"])
        differing, notes = outcome.differing(calm), []
        if "metrics" in differing:
            pairs = zip(outcome.metrics, calm.metrics, strict=False)
            notes = [f"{ours} instead of {theirs}" for ours, theirs in pairs if ours != theirs][:3]
            notes.append(f"{len(outcome.metrics)} lines of metrics instead of {len(calm.metrics)}")
        return cls(run.name, True, differing, outcome.wrong_windows(expected), notes)


@dataclass(slots=True)
class Report:
    """All that happened."""

    kills: list[Kill] = field(default_factory=list)
    runs: list[RunEnd] = field(default_factory=list)
    resumes: int = 0
    """Times that workers went on from a checkpoint."""
    damaged_loaded: int = 0
    """Of them, from one that was not what its manifest says."""
    unverified: int = 0
    """Of them, from one that was deleted, as an old one is, before it could be looked at."""

    def broken_promises(self) -> dict[str, int]:
        """How often each promise was broken."""
        return {
            "kills not recovered": sum(not kill.recovered for kill in self.kills),
            "runs not finished": sum(not run.finished for run in self.runs),
            "runs that ended otherwise": sum(bool(run.differing) for run in self.runs),
            "windows lost or seen twice": sum(run.wrong_windows for run in self.runs),
            "damaged checkpoints loaded": self.damaged_loaded,
            "whole checkpoints passed over": sum(
                kill.known and kill.followed and kill.resumed != kill.newest for kill in self.kills
            ),
        }

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        damaged = [kill for kill in self.kills if kill.damaged]
        return {
            "table": {victim: {moment: self._count(victim, moment) for moment in Moment} for victim in Victim},
            "recovered": sum(kill.recovered for kill in self.kills),
            "resumes_from_checkpoints": self.resumes,
            "checkpoints_damaged": len(damaged),
            "damaged_checkpoints_passed_over": sum(kill.followed and kill.resumed != kill.damaged for kill in damaged),
            "loaded_checkpoints_not_verified": self.unverified,
            "steps_done_again": sum(kill.again for kill in self.kills),
            "seconds_to_next_step": {
                name: _spread(
                    kill.seconds for kill in self.kills if name in ("all", kill.victim) and not kill.hit_again
                )
                for name in ("all", *Victim)
            },
            "broken_promises": self.broken_promises(),
            "kills": [asdict(kill) for kill in self.kills],
            "runs": [asdict(run) for run in self.runs],
        }

    def text(self) -> str:
        """The report for people."""
        whole = self.as_dict()
        lines = [f"{'killed in':<10}" + "".join(f"{moment:>12}" for moment in (*Moment, "all"))]
        for victim in Victim:
            counts = [whole["table"][victim][moment] for moment in Moment]
            lines.append(f"{victim:<10}" + "".join(f"{count:>12}" for count in (*counts, sum(counts))))
        lines.append(f"recovered: {whole['recovered']} of {len(self.kills)} kills, in {len(self.runs)} runs")
        lines.append(f"steps done again: {whole['steps_done_again']} (after killed drivers within a second's steps)")
        for name, spread in whole["seconds_to_next_step"].items():
            if spread:
                lines.append(f"seconds to the next step, {name}: median {spread['median']}, worst {spread['worst']}")
        lines.append("(of kills whose run was not hit again before that step)")
        lines.append(
            f"checkpoints: {self.resumes} loaded and {self.resumes - self.unverified} of them verified; "
            f"{whole['checkpoints_damaged']} damaged and {whole['damaged_checkpoints_passed_over']} of them passed over"
        )
        equal = sum(run.finished and not run.differing for run in self.runs)
        lines.append(
            f"weights, predictions, metrics and ledger equal the undisturbed run's: {equal} of {len(self.runs)}"
        )
        lines += [f"{promise}: {times}" for promise, times in self.broken_promises().items()]
        lines += [f"{run.name}: {note}" for run in self.runs for note in run.notes]
        return "\n".join(lines)

    def _count(self, victim: Victim, moment: Moment) -> int:
        return Counter((kill.victim, kill.moment) for kill in self.kills)[victim, moment]


def _spread(seconds: Iterable[float | None]) -> dict[str, float] | None:
    known = [value for value in seconds if value is not None]
    return {"median": round(median(known), 1), "worst": round(max(known), 1)} if known else None
