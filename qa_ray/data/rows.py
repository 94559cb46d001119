"""Files of every layout, and Hub data sets, as one stream of rows: what each says, or why it cannot be read."""

import contextlib
import csv
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from qa_ray.config.data import DataConfig
from qa_ray.config.policies import DataFormat
from qa_ray.data.files import HubSplit, SourceFile
from qa_ray.data.layouts.json_files import describe_json, json_rows, line_rows
from qa_ray.data.layouts.source_row import SourceRow, Wanted
from qa_ray.data.layouts.tables import BATCH_ROWS, csv_rows, parquet_rows, table_rows
from qa_ray.errors import DataError

_LAYOUTS: dict[DataFormat, Callable[[SourceFile, Wanted], Iterator[SourceRow]]] = {
    DataFormat.SQUAD: json_rows,
    DataFormat.JSONL: line_rows,
    DataFormat.PARQUET: parquet_rows,
    DataFormat.CSV: csv_rows,
    DataFormat.TSV: csv_rows,
}
_WORDS = {
    DataFormat.SQUAD: "JSON",
    DataFormat.JSONL: "JSON lines",
    DataFormat.PARQUET: "Parquet",
    DataFormat.CSV: "CSV",
    DataFormat.TSV: "TSV",
}
_LOOKED_INTO = 20  # files of which the beginning is read only to say what they are


def read_rows(source: SourceFile | HubSplit, data: DataConfig, *, answers: bool = True) -> Iterator[SourceRow]:
    """Yield the rows of a file or a Hub data set, as they are read; a document of JSON is read whole.

    Lines are counted from 1, rows from 0; blank lines are no rows. Text that is not UTF-8 stays bytes. The keys of
    nested questions come under the names that `data.columns` gives them.

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
        raise DataError(f"cannot be read as {_WORDS[source.format]}: {error}") from error
    except OSError as error:
        hint = "a local path must be there on every node; else use shared storage or a URI such as s3://"
        raise DataError(f"cannot be read on node {socket.gethostname()}: {error} ({hint})") from error


def recognised(sources: Sequence[SourceFile | HubSplit]) -> str:
    """What sources are taken for, in words, such as `2 files, JSON lines (gzip)`; little of them is read."""
    kinds = Counter(_kind(source, look=number < _LOOKED_INTO) for number, source in enumerate(sources))
    num_files = f"{len(sources)} file{'s' * (len(sources) > 1)}"
    if len(kinds) == 1:
        (kind,) = kinds
        return kind if isinstance(sources[0], HubSplit) else f"{num_files}, {kind}"
    return f"{num_files}: {', '.join(f'{count} x {kind}' for kind, count in kinds.items())}"


def _kind(source: SourceFile | HubSplit, *, look: bool) -> str:
    if isinstance(source, HubSplit):
        return f"the split {source.split} of {source.location} on the Hub"
    words = _WORDS[source.format]
    if look and source.format in (DataFormat.SQUAD, DataFormat.JSONL):
        # What cannot be read is told where it is, which may be on another node.
        with contextlib.suppress(DataError, OSError):
            words = describe_json(source, lines=source.format is DataFormat.JSONL)
    return words + (f" ({source.compression})" if source.compression else "")


def _hub_rows(split: HubSplit, wanted: Wanted) -> Iterator[SourceRow]:
    dataset = open_hub(split, wanted.data)
    wanted.of(dataset.column_names)
    yield from table_rows(dataset.with_format("arrow").iter(BATCH_ROWS), split.name, split.num_rows or 1)


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
