"""Parts of the input, so many rows of a file each and always the same ones, and the folder that takes their answers.

Reading brings neither torch nor transformers: on few cores the process that reads would keep those that answer from
starting.
"""

import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

import pyarrow as pa

from qa_ray.config.data import Columns, DataConfig
from qa_ray.data.answers import cell
from qa_ray.data.files import HubSplit, SourceFile
from qa_ray.data.layouts.source_row import SourceRow
from qa_ray.data.rows import read_rows
from qa_ray.data.validation import RowError, check, expect_id, expect_text
from qa_ray.errors import DataError, UserError
from qa_ray.schema import Passage, Problem, Question

_PATTERN = re.compile(r"part-(\d{5,})-(\d{6,})\.\w+")
_INCOMPLETE = "-incomplete"
FIRST_PART_SIZE = 32
"""Questions in each of a file's first parts: few, so that answers are there soon."""
_PARTS_OF_A_SIZE = 16


@dataclass(frozen=True, slots=True)
class InputQuestion:
    """A question and its context, or the reason why it cannot be answered."""

    record: str
    """Where it was read: `dev.jsonl line 7`."""
    id: str
    """As given, or the record."""
    question: str | None
    context: str | None
    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """A file, or a split of a Hub data set, that is answered."""

    index: int
    """Its place among all, which its parts are named after."""
    source: SourceFile | HubSplit
    size: int
    """Bytes of a file, rows of a split."""
    mtime_ns: int | None = None
    """When a file was changed; None for a split."""
    finished: tuple[int, ...] = ()
    """Numbers of the parts that are written already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Some questions of one input, or why no more of it can be read; its name says whether rows are missing."""

    name: str = ""
    questions: list[InputQuestion] | None = None
    """None if they are answered already."""
    num_rows: int = 0
    size: float
    """What it takes of the input's size."""
    failure: UserError | None = None


def pack(value: object) -> pa.Table:
    """Return a table of one row that carries any object of ours through Ray Data."""
    return pa.table({"pickle": [pickle.dumps(value)]})


def unpack(table: pa.Table) -> list[Any]:
    """Return the objects in tables of `pack`."""
    return [pickle.loads(content) for content in table["pickle"].to_pylist()]


def input_question(row: SourceRow, columns: Columns) -> InputQuestion:
    """Find out whether a row can be answered."""
    record, content, _ = row
    if isinstance(content, Problem):
        return InputQuestion(record, record, None, None, _reason(content))
    problems: list[Problem] = []

    def value(column: str, expect: Callable[[str, str, object], str]) -> str | None:
        try:
            return expect(record, column, cell(record, content, column))
        except RowError as error:
            problems.append(error.problem)
            return None

    given = content.get(columns.id)
    blank = given is None or (isinstance(given, str | bytes) and not given.strip())
    identifier = record if blank else value(columns.id, expect_id) or record
    question, context = value(columns.question, expect_text), value(columns.context, expect_text)
    if question is not None and context is not None:
        problems += check(Passage(context, (Question(identifier, question, (), record),)))[1]
    return InputQuestion(record, identifier, question, context, _reason(problems[0]) if problems else None)


def _reason(problem: Problem) -> str:
    return f"{problem.field}={problem.value}: {problem.message}"


def part_name(index: int, number: int, ending: str, *, whole: bool = True) -> str:
    """Name of a part's file; one that is not `whole` lacks rows that cannot be read, and never counts as finished."""
    return f"part-{index:05}-{number:06}{'' if whole else _INCOMPLETE}.{ending}"


def finished_parts(names: Iterable[str]) -> dict[int, tuple[int, ...]]:
    """By the input's index, the numbers of its parts among the file names `names`."""
    found: dict[int, list[int]] = {}
    for name in names:
        match = _PATTERN.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return {index: tuple(sorted(numbers)) for index, numbers in found.items()}


def lacks_rows(name: str) -> bool:
    """Whether a file's name is that of a part that lacks rows."""
    return f"{_INCOMPLETE}." in name


def part_sizes(most: int) -> Iterator[int]:
    """Questions in the parts of an input, one after another: some of each size, which doubles up to `most`.

    So no part is more than a small share of what comes before it, and whoever is done waits little for the last one.
    """
    size = min(FIRST_PART_SIZE, most)
    while size < most:
        yield from repeat(size, _PARTS_OF_A_SIZE)
        size = min(2 * size, most)
    yield from repeat(most)


def read_packed(packed: pa.Table, data: DataConfig, size: int, max_rows: int | None, ending: str) -> Iterator[pa.Table]:
    """`read_parts` of the inputs in packed tables; the parts are packed, too."""
    yield from map(pack, read_parts(unpack(packed), data, size=size, max_rows=max_rows, ending=ending))


def read_parts(
    inputs: Iterable[Input], data: DataConfig, *, size: int, max_rows: int | None, ending: str
) -> Iterator[Part]:
    """Yield the parts of `inputs`, of up to `size` questions (see `part_sizes`), up to `max_rows` in all.

    Where an input breaks off, the part under way is yielded as far as it was read, and then why. With `max_rows` that
    is the end: what would come next depends on how many rows are missing.
    """
    left = max_rows
    for item in inputs:
        done, num_rows = 0.0, 0
        rows = islice(read_rows(item.source, data, answers=False), left)
        for number, (chunk, error) in enumerate(_chunks(rows, part_sizes(size))):
            if chunk:
                finished = number in item.finished
                questions = None if finished else [input_question(row, data.columns) for row in chunk]
                share, done = chunk[-1].share - done, chunk[-1].share
                num_rows += len(chunk)
                name = part_name(item.index, number, ending, whole=error is None)
                yield Part(name=name, questions=questions, num_rows=len(chunk), size=share * item.size)
            if error is not None:
                failure = DataError(f"{item.source.name}, after {num_rows} rows: {error}")
                yield Part(size=(1 - done) * item.size, failure=failure)
                if max_rows is not None:
                    return
        if left is not None:
            left -= num_rows
            if left == 0:
                return


def _chunks(rows: Iterator[SourceRow], sizes: Iterator[int]) -> Iterator[tuple[list[SourceRow], DataError | None]]:
    """Yield rows in chunks of `sizes` and, where no more can be read, those that were read since, with the reason."""
    chunk: list[SourceRow] = []
    size = next(sizes)
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) == size:
                yield chunk, None
                chunk, size = [], next(sizes)
    except DataError as error:
        yield chunk, error
        return
    if chunk:
        yield chunk, None
