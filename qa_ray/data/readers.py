"""Read a data file as a stream of Arrow tables of passages; why one cannot be read is told in a row, not raised."""

import io
import json
import socket
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from qa_ray.config.fine_tuning import Columns
from qa_ray.config.policies import DataFormat
from qa_ray.data import squad
from qa_ray.data.files import SourceFile
from qa_ray.data.tables import Row, first_questions, rows_to_passages, to_tables
from qa_ray.data.validation import WHOLE_FILE, shown
from qa_ray.errors import DataError, UserError
from qa_ray.schema import PASSAGES, Passage, Problem, passages_to_table

_CSV_BLOCK_BYTES = 8 << 20  # a row must fit in a block
_BATCH_ROWS = 1024


def read_file(source: SourceFile, columns: Columns, max_examples: int | None) -> Iterator[pa.Table]:
    """Yield a file's passages as PASSAGES tables of up to 256 passages, ending after `max_examples` questions.

    Lines are counted from 1, rows from 0. Why a file cannot be read is told in a row too, not raised: its problem has
    the field `file`.
    """
    try:
        items = _READERS[source.format](source, columns)
        yield from to_tables(first_questions(items, max_examples))
    except (UserError, pa.ArrowException, UnicodeDecodeError) as error:
        yield _unreadable(source, f"cannot be read as {source.format}: {error}")
    except OSError as error:
        hint = "a local path must be there on every node; else use shared storage or a URI such as s3://"
        yield _unreadable(source, f"cannot be read on node {socket.gethostname()}: {error} ({hint})")


def _unreadable(source: SourceFile, message: str) -> pa.Table:
    return passages_to_table([], [Problem(source.name, WHOLE_FILE, shown(source.location), message)])


def _read_squad(source: SourceFile, _columns: Columns) -> Iterator[Passage | Problem]:
    filesystem, path = source.open()
    with filesystem.open_input_stream(path) as stream:
        text = stream.read()
    yield from squad.parse(text, source.name)


def _read_jsonl(source: SourceFile, columns: Columns) -> Iterator[Passage | Problem]:
    filesystem, path = source.open()
    with filesystem.open_input_stream(path) as stream:
        yield from rows_to_passages(_json_rows(io.BufferedReader(stream), source.name), columns)


def _json_rows(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, Row] | Problem]:
    for number, line in enumerate(lines, start=1):
        item = parse_line(line, number, name)
        if item is not None:
            yield item


def parse_line(line: bytes, number: int, name: str) -> tuple[str, Row] | Problem | None:
    """Return a JSON line's row with its record, or what is wrong with it; None for a blank line.

    Raises:
        DataError: it is not UTF-8.
    """
    record = f"{name} line {number}"
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        row = json.loads(text) if text else None
    except UnicodeDecodeError as error:
        raise DataError(f"line {number} is not UTF-8: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        return Problem(record, "line", shown(text), f"is not JSON: {error}")
    if isinstance(row, dict):
        return record, row
    return (
        Problem(record, "line", shown(text), "expected a JSON object: one question with its context") if text else None
    )


def _read_parquet(source: SourceFile, columns: Columns) -> Iterator[Passage | Problem]:
    filesystem, path = source.open()
    with filesystem.open_input_file(path) as stream:
        file = pa.parquet.ParquetFile(stream)
        names = file.schema_arrow.names
        batches = file.iter_batches(_BATCH_ROWS, columns=_used(names, columns), use_threads=False)
        yield from rows_to_passages(numbered_rows(batches, source.name), columns, names)


def _read_csv(source: SourceFile, columns: Columns) -> Iterator[Passage | Problem]:
    names = csv_names(source)
    # As text: the type that is guessed from the first rows loses zeros of ids, and need not fit the later rows.
    batches = csv_batches(source, _used(names, columns), pa.string())
    yield from rows_to_passages(numbered_rows(batches, source.name), columns, names)


def csv_names(source: SourceFile) -> list[str]:
    """Return the names of a CSV file's columns."""
    filesystem, path = source.open()
    with filesystem.open_input_stream(path) as stream:
        names: list[str] = _open_csv(stream, on_misfit=lambda row: "skip").schema.names
    return names


def csv_batches(
    source: SourceFile,
    names: list[str],
    cells: pa.DataType,
    on_misfit: Callable[[pa.csv.InvalidRow], str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the columns `names` of a CSV file, with cells of one type.

    `on_misfit` is shown the rows that have too many or too few cells; without it, such a row is an error.
    """
    converting = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, cells), include_columns=names)
    filesystem, path = source.open()
    with filesystem.open_input_stream(path) as stream:
        yield from _open_csv(stream, converting, on_misfit)


def _open_csv(
    stream: pa.NativeFile,
    converting: pa.csv.ConvertOptions | None = None,
    on_misfit: Callable[[pa.csv.InvalidRow], str] | None = None,
) -> pa.csv.CSVStreamingReader:
    reading = pa.csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES)
    parsing = pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=on_misfit)
    return pa.csv.open_csv(stream, reading, parsing, converting)


def _used(names: list[str], columns: Columns) -> list[str]:
    wanted = (columns.id, columns.context, columns.question, columns.answers, columns.answer_start)
    return [name for name in dict.fromkeys(wanted) if name in names]


def numbered_rows(batches: Iterable[pa.RecordBatch | pa.Table], name: str) -> Iterator[tuple[str, Row]]:
    """Yield each row of `batches` with its record: `name` and the row's number."""
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield f"{name} row {number}", row
            number += 1


_READERS: dict[DataFormat, Callable[[SourceFile, Columns], Iterator[Passage | Problem]]] = {
    DataFormat.SQUAD: _read_squad,
    DataFormat.JSONL: _read_jsonl,
    DataFormat.PARQUET: _read_parquet,
    DataFormat.CSV: _read_csv,
}


def read_files(sources: Iterable[SourceFile], columns: Columns, max_examples: int | None) -> Iterator[pa.Table]:
    """Yield the tables of several files one after the other, ending after `max_examples` questions in all."""
    yield PASSAGES.empty_table()  # so that a file without rows has a schema too
    left = max_examples
    for source in sources:
        if left is not None and left <= 0:
            return
        for table in read_file(source, columns, left):
            yield table
            if left is not None:
                left -= pc.sum(pc.list_value_length(table["questions"])).as_py() or 0
