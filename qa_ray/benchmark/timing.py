"""Ways that take turns on the clock, rows of what they took, and a table."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, NamedTuple

import torch


class Timing(NamedTuple):
    """One timed repeat of a way."""

    work: int
    """Examples or windows done."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: the timings of the standard way and of ours, which did the same work."""

    case: str
    standard: str
    """What the standard way is, in a few words."""
    ours: str
    unit: str
    standard_timings: list[Timing]
    ours_timings: list[Timing]
    goal: float | None = None
    """The ratio that is hoped for."""
    details: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return speed(self.ours_timings) / speed(self.standard_timings)

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON."""
        row = asdict(self)
        for side in ("standard", "ours"):
            row[f"{side}_timings"] = [timing._asdict() for timing in getattr(self, f"{side}_timings")]
            row[f"{side}_per_second"] = speed(getattr(self, f"{side}_timings"))
        return row | {"ratio": self.ratio}


def speed(timings: list[Timing]) -> float:
    """Median work per second."""
    return median(timing.work / timing.seconds for timing in timings)


def interleave(case: str, ways: Mapping[str, Callable[[], Timing]], repeats: int) -> dict[str, list[Timing]]:
    """Run every way `repeats` times in turns, and say on stderr how far it is.

    A noisy neighbour then slows all ways alike, and a median leaves it out.
    """
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, way in ways.items():
            timing = way()
            timings[name].append(timing)
            speed_now = f"{timing.work / timing.seconds:.1f}/s in {timing.seconds:.1f} s"
            print(f"  {case} {repeat + 1}/{repeats} {name}: {speed_now}", file=sys.stderr, flush=True)
    if len({timing.work for of_way in timings.values() for timing in of_way}) > 1:
        raise AssertionError(f"{case}: the ways did not do the same work: {timings}")
    return timings


def now(device: torch.device) -> float:
    """Seconds of a clock, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines: list[tuple[str, ...]] = [("case", "standard", "ours", "unit", "standard/s", "ours/s", "ratio", "goal")]
    for row in rows:
        speeds = (f"{speed(timings):,.1f}" for timings in (row.standard_timings, row.ours_timings))
        goal = "" if row.goal is None else f">= {row.goal:g}"
        lines.append((row.case, row.standard, row.ours, row.unit, *speeds, f"{row.ratio:.3g}", goal))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if place < 4 else cell.rjust(width) for place, (cell, width) in enumerate(cells))
        for cells in (zip(line, widths, strict=True) for line in lines)
    )
