"""Tables: CSV and TSV, Parquet, and the batches of Hub data sets."""

import csv
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet

from qa_ray.config.policies import DataFormat
from qa_ray.data.files import SourceFile
from qa_ray.data.layouts.source_row import Row, SourceRow, Wanted
from qa_ray.data.layouts.unpacking import lines
from qa_ray.schema import Problem

BATCH_ROWS = 1024
_CELL_CHARACTERS = 8 << 20  # where a quote is left open, the rest of the file would be one cell


def csv_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    """Yield the rows of a file whose first row names the columns; cells stand between commas, or tabs in TSV.

    Raises:
        DataError: a column is missing.
    """
    delimiter = "\t" if source.format is DataFormat.TSV else ","
    csv.field_size_limit(_CELL_CHARACTERS)
    texts = _Texts(source)
    # What does not stand between quotes as it should is an error, else the text would be changed.
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    names = next(filter(None, reader), [])
    used = wanted.of(names)
    number = 0
    while True:
        texts.taken.clear()
        message = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, message = texts.first_alone().split(delimiter), f"{error}: is a quote left open?"
        if not cells:
            continue
        record = f"{source.name} row {number}"
        content: Row | Problem = {name: _text(cell) for name, cell in zip(names, cells, strict=False) if name in used}
        if len(cells) != len(names):
            message = message or f"expected {len(names)} cells, found {len(cells)}"
            content = Problem(record, "row", "(not shown)", message)
        yield SourceRow(record, content, texts.share)
        number += 1


class _Texts(Iterator[str]):
    """The lines of a file as text, some of which may be read again.

    Attributes:
        taken: lines that were read since it was cleared, with the share of the file that is read with each.
        share: that of the last line.
    """

    def __init__(self, source: SourceFile) -> None:
        self.taken: list[tuple[str, float]] = []
        self.share = 0.0
        self._given_back: list[tuple[str, float]] = []
        self._lines = (
            (part.decode("utf-8", "surrogateescape"), share)
            for line, share in lines(source)
            for part in line.splitlines(keepends=True)
        )

    def __next__(self) -> str:
        text, self.share = taken = self._given_back.pop() if self._given_back else next(self._lines)
        self.taken.append(taken)
        return text

    def first_alone(self) -> str:
        """The first line that was taken, without its end; the others are given back: an open quote spoils no other."""
        first, *others = self.taken
        self._given_back += reversed(others)
        return first[0].rstrip("\r\n")


def _text(cell: str) -> str | bytes:
    """A cell, as bytes if it is not UTF-8."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogateescape")
    return cell


def parquet_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    """Yield the rows of a Parquet file.

    Raises:
        DataError: a column is missing.
    """
    filesystem, path = source.open()
    with filesystem.open_input_file(path) as stream:
        file = pa.parquet.ParquetFile(stream)
        columns = wanted.of(file.schema_arrow.names)
        # One after the other: a batch across a sound row group and a damaged one would lose both.
        batches = (
            batch
            for group in range(file.num_row_groups)
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False)
        )
        yield from table_rows(batches, source.name, file.metadata.num_rows)


def table_rows(batches: Iterable[pa.RecordBatch | pa.Table], name: str, total: int) -> Iterator[SourceRow]:
    """Yield the rows of `batches`, which hold `total` rows of the source `name`."""
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
