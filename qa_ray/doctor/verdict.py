"""What a check has found, and how several nodes are named in a line."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

V = TypeVar("V", bound=Hashable)

_MOST_NAMES = 3


class Status(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    WARNING = "warning"
    """The run works, but something is not as it should be."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """There was nothing to check."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check has found."""

    status: Status
    seen: str
    cure: str = ""
    """What to do about it."""


def passed(seen: str) -> Verdict:
    """All is well."""
    return Verdict(Status.PASSED, seen)


def warning(seen: str, cure: str) -> Verdict:
    """It works, but."""
    return Verdict(Status.WARNING, seen, cure)


def failed(seen: str, cure: str) -> Verdict:
    """The run would fail."""
    return Verdict(Status.FAILED, seen, cure)


def skipped(why: str) -> Verdict:
    """There was nothing to check."""
    return Verdict(Status.SKIPPED, why)


def share(names: Collection[str]) -> str:
    """Name a few of many: `a, b, c and 2 more`."""
    shown = list(names)[:_MOST_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def by_value(found: Mapping[str, V]) -> dict[V, list[str]]:
    """Names of the places where each value was found, the commonest value first."""
    places: dict[V, list[str]] = {}
    for name, value in found.items():
        places.setdefault(value, []).append(name)
    return dict(sorted(places.items(), key=lambda item: -len(item[1])))


def told(failures: Mapping[str, str]) -> str:
    """Failures with the nodes that met them, each message once."""
    return "; ".join(f"{share(names)}: {message}" for message, names in by_value(failures).items())


def size(num_bytes: float) -> str:
    """A number of bytes to read: `2.4 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"
