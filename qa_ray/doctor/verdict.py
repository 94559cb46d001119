"""What a check has found, how nodes are named in it, and its lines on the screen."""

import textwrap
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TypeVar

V = TypeVar("V", bound=Hashable)

_MOST_NAMES = 3
_WIDTH = 120
_NAME_WIDTH = 14


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


passed = partial(Verdict, Status.PASSED)
warning = partial(Verdict, Status.WARNING)
failed = partial(Verdict, Status.FAILED)
skipped = partial(Verdict, Status.SKIPPED)


def row(name: str, verdict: Verdict) -> str:
    """A check's line and, indented below it, what to do."""
    head = f"{verdict.status:<8} {name:<{_NAME_WIDTH}} "
    indent = " " * len(head)
    # Paths and commands are copied from here: they stay whole.
    wrap = textwrap.TextWrapper(_WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False).wrap
    return "\n".join(wrap(head + verdict.seen) + (wrap(f"{indent}-> {verdict.cure}") if verdict.cure else []))


def total(verdicts: Collection[Verdict]) -> str:
    """How many checks ended how."""
    counts = Counter(verdict.status for verdict in verdicts)
    parts = [f"{counts[status]} {status}" for status in Status if counts[status]]
    return f"{len(verdicts)} checks: {', '.join(parts)}"


def share(names: Collection[str]) -> str:
    """Name a few of many: `a, b, c and 2 more`."""
    more = len(names) - _MOST_NAMES
    return ", ".join(list(names)[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def by_value(found: Mapping[str, V]) -> dict[V, list[str]]:
    """Names of the places where each value was found, the commonest value first."""
    places: dict[V, list[str]] = {}
    for name, value in found.items():
        places.setdefault(value, []).append(name)
    return dict(sorted(places.items(), key=lambda item: -len(item[1])))


def listed(found: Mapping[str, str]) -> str:
    """Values with the places where each was found: `bf16 on a, b; fp16 on c`."""
    return "; ".join(f"{value} on {share(names)}" for value, names in by_value(found).items())


def told(failures: Mapping[str, str]) -> str:
    """Failures with the nodes that met them, each message once."""
    return "; ".join(f"{share(names)}: {message}" for message, names in by_value(failures).items())


def size(num_bytes: float) -> str:
    """A number of bytes to read: `2.4 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"
