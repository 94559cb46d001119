"""Files of every layout, and Hub data sets, as one stream of rows: what each says, or why it cannot be read.

A layout is one function here, from a file to its rows.
"""

import csv
import io
import json
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from qa_ray.config.fine_tuning import Columns, DataConfig
from qa_ray.config.policies import DataFormat
from qa_ray.data.files import HubSplit, SourceFile
from qa_ray.data.validation import shown
from qa_ray.errors import DataError
from qa_ray.schema import Problem

Row = Mapping[str, object]
IMPOSSIBLE = "is_impossible"
"""Column that says of a question that its context holds no answer, where there is such a column."""

_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20  # so much is asked of an object store at once
_CELL_CHARACTERS = 8 << 20  # where a quote is left open, the rest of the file would be one cell


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
        needed = ["context", "question"] + ["answers"] * self.answers + ["id"] * (columns.id != Columns().id)
        for name in needed:
            if getattr(columns, name) not in names:
                there = ", ".join(names) or "none"
                raise DataError(
                    f"there is no column {getattr(columns, name)!r}; the columns there are: {there}. "
                    f"Name the right one with {self.data.option(f'columns.{name}')}=..."
                )
        wanted = [columns.id, columns.context, columns.question]
        wanted += [columns.answers, columns.answer_start, IMPOSSIBLE] if self.answers else []
        return [name for name in dict.fromkeys(wanted) if name in names]


def read_rows(source: SourceFile | HubSplit, data: DataConfig, *, answers: bool = True) -> Iterator[SourceRow]:
    """Yield the rows of a file or a Hub data set, as they are read; nested SQuAD JSON is read whole.

    Lines are counted from 1, rows from 0; blank lines are no rows. Text that is not UTF-8 stays bytes. The keys of
    nested SQuAD JSON come under the names that `data.columns` gives them.

    Raises:
        DataError: it cannot be read, is not of its layout, or has not the columns.
    """
    wanted = Wanted(data, answers)
    if isinstance(source, HubSplit):
        yield from _hub_rows(source, wanted)
        return
    try:
        yield from _LAYOUTS[source.format](source, wanted)
    except (DataError, pa.ArrowException, csv.Error) as error:
        raise DataError(f"cannot be read as {source.format}: {error}") from error
    except OSError as error:
        hint = "a local path must be there on every node; else use shared storage or a URI such as s3://"
        raise DataError(f"cannot be read on node {socket.gethostname()}: {error} ({hint})") from error


def _squad_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    filesystem, path = source.open()
    with filesystem.open_input_stream(path) as stream:
        document = _parse(stream.read(), wanted)
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise DataError(
            f"it is not nested SQuAD JSON: expected an object with the list 'data', found {shown(document)}"
        )
    rows = list(_nested_rows(document, ("data", "paragraphs", "qas"), f"{source.name} ", {}))
    names = asdict(wanted.data.columns)
    for number, (record, content) in enumerate(rows, start=1):
        if not isinstance(content, Problem):
            content = {names.get(key, key): value for key, value in content.items()}
        yield SourceRow(record, content, number / len(rows))


def _parse(text: bytes, wanted: Wanted) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        option = wanted.data.option("format")
        hint = f"; if each line is an object of its own, set {option}=jsonl" if error.msg == "Extra data" else ""
        place = f"line {error.lineno} column {error.colno}"
        raise DataError(f"{place} is not JSON: {error.msg}: {shown(error.doc[error.pos :])}{hint}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"line {line} is not UTF-8: {error.reason}: {shown(error.object[error.start :])}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not JSON that can be read: {error}") from error


def _nested_rows(
    parent: object, keys: tuple[str, ...], prefix: str, shared: Row
) -> Iterator[tuple[str, Row | Problem]]:
    """Yield the record and the content of each question below `parent`; `shared` is what its parents say of it."""
    key, *rest = keys
    record = prefix.rstrip(" .")
    items = parent.get(key, ...) if isinstance(parent, dict) else None
    if not isinstance(items, list):
        value = "(missing)" if items is ... else shown(items if isinstance(parent, dict) else parent)
        yield record, Problem(record, key, value, f"expected an object with the list {key!r}")
        return
    for index, item in enumerate(items):
        place = f"{prefix}{key}[{index}]"
        if rest:
            context = {"context": item["context"]} if isinstance(item, dict) and "context" in item else {}
            yield from _nested_rows(item, tuple(rest), f"{place}.", context)
        elif isinstance(item, dict):
            yield place, {**item, **shared}
        else:
            yield place, Problem(place, "question", shown(item), "expected an object with the key 'question'")


def _lines(source: SourceFile) -> Iterator[tuple[bytes, float]]:
    """Yield each line of a file, and the share of the file that is read with it."""
    filesystem, path = source.open()
    size = filesystem.get_file_info(path).size or 1
    done = 0
    with filesystem.open_input_stream(path, buffer_size=_BUFFER_BYTES) as stream:
        for line in io.BufferedReader(stream):
            text = line if done else line.removeprefix(b"\xef\xbb\xbf")
            done += len(line)
            yield text, min(1.0, done / size)


def _jsonl_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    checked = not wanted.answers  # a question that is only answered spoils no other, be it the first
    for number, (line, share) in enumerate(_lines(source), start=1):
        record = f"{source.name} line {number}"
        text: str | bytes = line
        content: Row | Problem
        try:
            text = line.decode().strip()
            if not text:
                continue
            content = json.loads(text)
            if not isinstance(content, dict):
                content = _bad_line(record, text, "expected a JSON object: one question with its context")
        except UnicodeDecodeError as error:
            content = _bad_line(record, line, f"is not UTF-8: {error.reason} at byte {error.start}")
        except (ValueError, RecursionError) as error:
            content = _bad_line(record, text, f"is not JSON: {error}")
        if not checked and not isinstance(content, Problem):
            checked = bool(wanted.of(content))
        yield SourceRow(record, content, share)


def _bad_line(record: str, line: str | bytes, message: str) -> Problem:
    return Problem(record, "line", shown(line), message)


def _csv_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    share = 0.0

    def lines() -> Iterator[str]:
        nonlocal share
        for line, read in _lines(source):
            share = read
            for part in line.splitlines(keepends=True):
                yield part.decode("utf-8", "surrogateescape")

    csv.field_size_limit(_CELL_CHARACTERS)
    rows = filter(None, csv.reader(lines()))
    names = next(rows, [])
    used = wanted.of(names)
    for number, cells in enumerate(rows):
        record = f"{source.name} row {number}"
        content: Row | Problem = {name: _text(cell) for name, cell in zip(names, cells, strict=False) if name in used}
        if len(cells) != len(names):
            content = Problem(record, "row", "(not shown)", f"expected {len(names)} cells, found {len(cells)}")
        yield SourceRow(record, content, share)


def _text(cell: str) -> str | bytes:
    """A cell, as bytes if it is not UTF-8."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogateescape")
    return cell


def _parquet_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    filesystem, path = source.open()
    with filesystem.open_input_file(path) as stream:
        file = pa.parquet.ParquetFile(stream)
        columns = wanted.of(file.schema_arrow.names)
        # One after the other: a batch across a sound row group and a damaged one would lose both.
        batches = (
            batch
            for group in range(file.num_row_groups)
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False)
        )
        yield from _table_rows(batches, source.name, file.metadata.num_rows)


def _table_rows(batches: Iterable[pa.RecordBatch | pa.Table], name: str, total: int) -> Iterator[SourceRow]:
    rows = (row for batch in batches for row in _contents(batch))
    for number, row in enumerate(rows):
        record = f"{name} row {number}"
        content = Problem(record, "row", "(not shown)", "is not UTF-8") if row is None else row
        yield SourceRow(record, content, (number + 1) / total)


def _contents(batch: pa.RecordBatch | pa.Table) -> list[Row | None]:
    """The rows; None for one with text that is not UTF-8, which nobody has checked before it is read."""
    try:
        rows: list[Row | None] = batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for place in range(batch.num_rows) for row in _contents(batch.slice(place, 1))]
    return rows


def _hub_rows(split: HubSplit, wanted: Wanted) -> Iterator[SourceRow]:
    dataset = open_hub(split, wanted.data)
    wanted.of(dataset.column_names)
    yield from _table_rows(dataset.with_format("arrow").iter(_BATCH_ROWS), split.name, split.num_rows or 1)


def open_hub(split: HubSplit, data: DataConfig) -> Any:
    """Return a split of the Hub data set `data.hub`, in a cache on the local disk unless it is streamed.

    Raises:
        DataError: it cannot be loaded.
    """
    import datasets  # here, since it costs seconds, and only Hub data needs it

    try:
        return datasets.load_dataset(
            data.hub, data.hub_config, split=split.split, revision=data.revision, streaming=split.streaming
        )
    except Exception as error:  # the Hub's clients raise errors of several packages, without a base of their own
        hub, train = data.option("hub"), data.option("train")
        raise DataError(
            f"{hub}={data.hub}, split {split.split!r}: cannot be loaded: {error}. Check the names of data set and "
            f"split; where the Hub cannot be reached, download the files and name them: {train}=FILE, without {hub}"
        ) from error


_LAYOUTS: dict[DataFormat, Callable[[SourceFile, Wanted], Iterator[SourceRow]]] = {
    DataFormat.SQUAD: _squad_rows,
    DataFormat.JSONL: _jsonl_rows,
    DataFormat.PARQUET: _parquet_rows,
    DataFormat.CSV: _csv_rows,
}
