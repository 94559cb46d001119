"""Questions to be answered, row by row as they stand in a file of any layout; a row that cannot be used says why.

Unlike passages that a model learns from, a row needs no answers, spoils no other row, and keeps its place.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from qa_ray.config.fine_tuning import Columns
from qa_ray.config.policies import DataFormat
from qa_ray.data import squad
from qa_ray.data.files import SourceFile
from qa_ray.data.readers import csv_batches, csv_names, numbered_rows, parse_line
from qa_ray.data.tables import Row, cell, require_columns
from qa_ray.data.validation import WHOLE_FILE, RowError, check, expect_id, expect_text, shown
from qa_ray.errors import DataError
from qa_ray.schema import Passage, Problem, Question

_BATCH_ROWS = 1024

Given = tuple[str, Row] | Problem
"""A row with its record, or why there is none."""


class Item(NamedTuple):
    """A row of a file, which is parsed when it is needed: those that are answered already are passed over."""

    content: Given | Callable[[], Given]
    share: float
    """Share of the file that is read once this row is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its context, or the reason why it cannot be answered."""

    record: str
    """Where it was read: `dev.jsonl line 7`."""
    id: str
    """As given, or the record."""
    question: str | None
    context: str | None
    reason: str | None


def read_items(source: SourceFile, size: int, columns: Columns) -> Iterator[Item]:
    """Yield the rows of a file of `size` bytes, in batches from the disk; nested SQuAD JSON is read whole.

    Blank lines of JSONL are no rows.

    Raises:
        DataError: the file is not of its layout, or has not the columns.
        OSError: it cannot be read.
        pyarrow.ArrowException: it cannot be read.
    """
    if source.format is DataFormat.SQUAD:
        items = _squad_items(source)
    elif source.format is DataFormat.JSONL:
        items = _json_items(source, size)
    elif source.format is DataFormat.PARQUET:
        items = _parquet_items(source, columns)
    else:
        items = _csv_items(source, size, columns)
    before = None
    for item in items:
        if before is not None:
            yield before
        before = item
    if before is not None:
        # Bytes are counted roughly on the way.
        yield before._replace(share=1.0)


def batch_items(batches: Iterable[pa.RecordBatch | pa.Table], name: str, total: int) -> Iterator[Item]:
    """Yield each of the `total` rows of `batches`."""
    for number, row in enumerate(numbered_rows(batches, name), start=1):
        yield Item(row, number / total)


def ask(item: Item, columns: Columns) -> Asked:
    """Parse a row, and find out whether it can be answered."""
    given = item.content() if callable(item.content) else item.content
    if isinstance(given, Problem):
        return Asked(given.record, given.record, None, None, _reason(given))
    record, row = given
    problems: list[Problem] = []

    def value(column: str, expect: Callable[[str, str, Any], str]) -> str | None:
        try:
            return expect(record, column, _decoded(record, column, cell(record, row, column)))
        except RowError as error:
            problems.append(error.problem)
            return None

    identifier = record if _is_blank(row.get(columns.id)) else value(columns.id, expect_id)
    question, context = value(columns.question, expect_text), value(columns.context, expect_text)
    if question is not None and context is not None:
        problems += check(Passage(context, (Question(identifier or record, question, (), record),)))[1]
    return Asked(record, identifier or record, question, context, _reason(problems[0]) if problems else None)


def _reason(problem: Problem) -> str:
    return f"{problem.field}={problem.value}: {problem.message}"


def _is_blank(identifier: object) -> bool:
    return identifier is None or (isinstance(identifier, str | bytes) and not identifier.strip())


def _decoded(record: str, column: str, value: object) -> object:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RowError(Problem(record, column, shown(value), "is not UTF-8")) from error


def _squad_items(source: SourceFile) -> Iterator[Item]:
    filesystem, path = source.open()
    with filesystem.open_input_stream(path) as stream:
        rows = list(squad.questions(stream.read(), source.name))
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Problem) and row.field == WHOLE_FILE:
            raise DataError(str(row))
        yield Item(row, number / len(rows))


def _json_items(source: SourceFile, size: int) -> Iterator[Item]:
    filesystem, path = source.open()
    done = 0
    with filesystem.open_input_stream(path) as stream:
        for number, line in enumerate(io.BufferedReader(stream), start=1):
            done += len(line)
            if line.strip():
                yield Item(partial(_parse, line, number, source.name), min(1.0, done / size))


def _parse(line: bytes, number: int, name: str) -> Given:
    record = f"{name} line {number}"
    try:
        return parse_line(line, number, name) or Problem(record, "line", shown(line), "is blank")
    except DataError:
        return Problem(record, "line", shown(line), "is not UTF-8")


def _parquet_items(source: SourceFile, columns: Columns) -> Iterator[Item]:
    filesystem, path = source.open()
    with filesystem.open_input_file(path) as stream:
        file = pa.parquet.ParquetFile(stream)
        used = _used(file.schema_arrow.names, columns)
        batches = file.iter_batches(_BATCH_ROWS, columns=used, use_threads=False)
        yield from batch_items(batches, source.name, file.metadata.num_rows)


def _csv_items(source: SourceFile, size: int, columns: Columns) -> Iterator[Item]:
    used = _used(csv_names(source), columns)
    misfits: dict[int, str] = {}

    def keep(row: pa.csv.InvalidRow) -> str:
        # The header is row 1.
        misfits[row.number - 2] = f"expected {row.expected_columns} cells, found {row.actual_columns}"
        return "skip"

    def sound() -> Iterator[tuple[Row, float]]:
        done = 0
        # As bytes: one cell that is not UTF-8 would spoil its whole batch.
        for batch in csv_batches(source, used, pa.binary(), keep):
            done += batch.nbytes
            for row in batch.to_pylist():
                yield row, min(1.0, done / size)

    number = 0
    for row, share in sound():
        while number in misfits:
            yield _misfit(source.name, number, misfits[number], share)
            number += 1
        yield Item((f"{source.name} row {number}", row), share)
        number += 1
    while number in misfits:
        yield _misfit(source.name, number, misfits[number], 1.0)
        number += 1


def _misfit(name: str, number: int, message: str, share: float) -> Item:
    return Item(Problem(f"{name} row {number}", "row", "(not shown)", message), share)


def _used(names: list[str], columns: Columns) -> list[str]:
    require_columns(names, columns, answers=False)
    return [name for name in dict.fromkeys((columns.id, columns.question, columns.context)) if name in names]
