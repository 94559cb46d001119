"""Whether the nodes' clocks agree: stores refuse requests with a wrong time, and records are ordered by it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qa_ray.doctor.verdict import Verdict, failed, passed, warning

# S3 refuses requests that are 15 minutes off; a clock that is a minute off is not set by anything.
_WARN_S, _FAIL_S = 2.0, 60.0
_CURE = "let NTP (chrony, systemd-timesyncd) set the clock there"


class Reading(NamedTuple):
    """A node's clock, read between two looks at the driver's; all in seconds since 1970."""

    asked: float
    told: float
    answered: float


def skew(readings: Sequence[Reading]) -> float:
    """Seconds by which a clock is certainly off, given how long its answers took; above 0 if it is ahead."""
    best = min(readings, key=lambda one: one.answered - one.asked)
    offset = best.told - (best.asked + best.answered) / 2
    doubt = (best.answered - best.asked) / 2
    certain = max(abs(offset) - doubt, 0.0)
    return certain if offset > 0 else -certain


def same_time(readings: Mapping[str, Sequence[Reading]]) -> Verdict:
    """Compare the nodes' clocks with the driver's."""
    skews = {name: skew(one) for name, one in readings.items()}
    worst = max(abs(one) for one in skews.values())
    off = [f"{name} by {one:+.1f} s" for name, one in skews.items() if abs(one) > _WARN_S]
    if worst > _FAIL_S:
        return failed(f"clocks are off the driver's: {'; '.join(off)}", _CURE)
    if off:
        return warning(f"clocks are off the driver's: {'; '.join(off)}", _CURE)
    return passed(f"within {max(worst, 0.1):.1f} s of the driver's")
