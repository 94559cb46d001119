"""The lines on the screen: one a check, and below what is not well what to do about it."""

import os
import shutil
import textwrap
from collections import Counter
from collections.abc import Collection
from typing import TextIO

from qa_ray.doctor.verdict import Status, Verdict

_WIDEST = 120
_NAME_WIDTH = 14
_COLOURS = {Status.PASSED: 32, Status.WARNING: 33, Status.FAILED: 31, Status.SKIPPED: 2}


def row(name: str, verdict: Verdict, *, colour: bool = False, width: int = _WIDEST) -> str:
    """A check's line and, indented below it, what to do."""
    word = f"{verdict.status:<8}"
    head = f"{word} {name:<{_NAME_WIDTH}} "
    lines = _wrapped(head, verdict.seen, width)
    if verdict.cure:
        lines += _wrapped(" " * len(head), f"-> {verdict.cure}", width)
    text = "\n".join(lines)
    return f"\033[{_COLOURS[verdict.status]}m{word}\033[0m{text[len(word) :]}" if colour else text


def _wrapped(head: str, text: str, width: int) -> list[str]:
    # Paths and commands are copied from here: they stay whole.
    return textwrap.wrap(
        head + text,
        width,
        subsequent_indent=" " * len(head),
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
    )


def total(verdicts: Collection[Verdict]) -> str:
    """How many checks ended how."""
    counts = Counter(verdict.status for verdict in verdicts)
    parts = [f"{counts[status]} {status}" for status in Status if counts[status]]
    return f"{len(verdicts)} checks: {', '.join(parts)}"


def terminal(stream: TextIO) -> tuple[bool, int]:
    """Whether lines that go to `stream` are coloured, and how long they may be."""
    if not stream.isatty():
        return False, _WIDEST
    return "NO_COLOR" not in os.environ, min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
