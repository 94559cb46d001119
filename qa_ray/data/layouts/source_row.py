"""A row as a layout yields it, and the columns that are read."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from qa_ray.config.data import Columns, DataConfig
from qa_ray.errors import DataError
from qa_ray.schema import Problem

Row = Mapping[str, object]
IMPOSSIBLE = "is_impossible"
"""Column that says of a question that its context holds no answer, where there is such a column."""
CATEGORY = "answer_category"
"""Key of an annotated answer that says whether there is one."""
SPANS = "detected_answers"
"""Column in which MRQA says where the answers stand."""

_ODD_ROWS = 1000  # so many are held back until one has the columns


class SourceRow(NamedTuple):
    """A row as it stands in a file or a Hub data set."""

    record: str
    """Where it was read: `train.json data[3].paragraphs[0].qas[2]`, `dev.jsonl line 7`."""
    content: Row | Problem
    """What it says by column, or why it cannot be read."""
    share: float
    """Share of the file that is read once this row is."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The columns that are read."""

    data: DataConfig
    answers: bool
    """Whether rows must have answers."""

    def of(self, names: Collection[str]) -> list[str]:
        """Those of the columns `names` of a file that are read.

        Raises:
            DataError: one is missing.
        """
        columns = self.data.columns
        for name in self._needed():
            if getattr(columns, name) not in names and not (name == "answers" and SPANS in names):
                raise DataError(
                    f"there is no column {getattr(columns, name)!r}; the columns there are: {listed(names)}. "
                    f"Name the right one with {self.data.option(f'columns.{name}')}=..."
                )
        wanted = [columns.id, columns.context, columns.question]
        wanted += [columns.answers, columns.answer_start, IMPOSSIBLE, SPANS] if self.answers else []
        return [name for name in dict.fromkeys(wanted) if name in names]

    def held_to(self, rows: Iterator[SourceRow]) -> Iterator[SourceRow]:
        """Yield rows whose columns nothing tells beforehand; one that lacks some spoils no other.

        Raises:
            DataError: a column is missing in all rows, or in so many that no other can be meant.
        """
        held: list[SourceRow] = []
        for row in rows if self.answers else ():  # a question that is only answered spoils no other in any case
            held.append(row)
            if self._suits(row) or len(held) == _ODD_ROWS:
                break
        first = next((row.content for row in held if not isinstance(row.content, Problem)), None)
        if first is not None and not self._suits(held[-1]):
            self.of(first)
        yield from held
        yield from rows

    def _needed(self) -> list[str]:
        return ["context", "question"] + ["answers"] * self.answers + ["id"] * (self.data.columns.id != Columns().id)

    def _suits(self, row: SourceRow) -> bool:
        content, columns = row.content, self.data.columns
        if isinstance(content, Problem):
            return False
        optional = {columns.answers} if content.keys() & {IMPOSSIBLE, SPANS} else set()
        return {getattr(columns, name) for name in self._needed()} - optional <= content.keys()


def listed(names: Collection[str]) -> str:
    """Names of columns as messages show them: whatever stands in them can be stored."""
    return ", ".join(names).encode(errors="backslashreplace").decode() or "none"
