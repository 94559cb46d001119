"""Data in: files of any layout, or a Hub data set, to a Ray Dataset of passages."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray.data

from qa_ray.config.fine_tuning import Columns, DataConfig
from qa_ray.config.policies import DataFormat
from qa_ray.data.files import SourceFile, find_files
from qa_ray.data.readers import numbered_rows, read_files
from qa_ray.data.tables import first_questions, rows_to_passages, to_tables
from qa_ray.errors import DataError
from qa_ray.schema import PASSAGES

_BLOCK_PASSAGES = 512  # tens of milliseconds of tokenisation: more than a task costs, and many tasks for a big file
HUB_BATCH_ROWS = 1024


def passages(data: DataConfig, location: str, max_examples: int | None) -> ray.data.Dataset:
    """Return the passages at `location` as a lazy Dataset of the schema PASSAGES; rows are not validated yet.

    Each file is read by a task of its own, or all by one where only the first `max_examples` questions are wanted.
    Blocks are small, so that the next step works on a single big file in parallel.

    Raises:
        DataError: nothing is at `location`, or the Hub data set cannot be loaded.
    """
    if data.hub is not None:
        return hub_passages(data, location, max_examples)
    rows = [
        {"location": file.location, "name": file.name, "format": str(file.format)}
        for file in find_files(data, location)
    ]
    sources = ray.data.from_items(rows, override_num_blocks=len(rows) if max_examples is None else 1)
    read = sources.map_batches(
        _read_sources,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"columns": data.columns, "max_examples": max_examples},
    )
    return _in_small_blocks(read)


def _in_small_blocks(dataset: ray.data.Dataset) -> ray.data.Dataset:
    # Without strict, Ray fuses reading, this and the next step into one task for each file.
    return dataset.repartition(target_num_rows_per_block=_BLOCK_PASSAGES, strict=True)


def _read_sources(rows: pa.Table, columns: Columns, max_examples: int | None) -> Iterator[pa.Table]:
    sources = [SourceFile(row["location"], row["name"], DataFormat(row["format"])) for row in rows.to_pylist()]
    yield from read_files(sources, columns, max_examples)


def hub_passages(data: DataConfig, split: str, max_examples: int | None) -> ray.data.Dataset:
    """Return a split of the Hub data set `data.hub` as a Dataset of the schema PASSAGES; it is loaded at once, here.

    Raises:
        DataError: it cannot be loaded, or a column is missing.
    """
    tables = [PASSAGES.empty_table(), *hub_tables(data, split, max_examples)]
    return _in_small_blocks(ray.data.from_arrow(pa.concat_tables(tables)))


def hub_tables(
    data: DataConfig, split: str, max_examples: int | None, *, streaming: bool = False
) -> Iterator[pa.Table]:
    """Yield a split of the Hub data set `data.hub` as PASSAGES tables; `streaming` downloads only what is read.

    Raises:
        DataError: it cannot be loaded, or a column is missing.
    """
    dataset = open_hub(data, split, streaming=streaming)
    batches = dataset.with_format("arrow").iter(HUB_BATCH_ROWS)
    try:
        items = rows_to_passages(numbered_rows(batches, f"{data.hub} {split}"), data.columns, dataset.column_names)
        yield from to_tables(first_questions(items, max_examples))
    except DataError as error:
        raise DataError(f"data.hub={data.hub} {split}: {error}") from error


def open_hub(data: DataConfig, split: str, *, streaming: bool = False) -> Any:
    """Return a split of the Hub data set `data.hub`, in a cache on the local disk unless it is read by `streaming`.

    Raises:
        DataError: it cannot be loaded.
    """
    import datasets  # here, since it costs seconds, and only Hub data needs it

    try:
        return datasets.load_dataset(
            data.hub, data.hub_config, split=split, revision=data.revision, streaming=streaming
        )
    except Exception as error:  # the Hub's clients raise errors of several packages, without a base of their own
        raise DataError(
            f"data.hub={data.hub}, split {split!r}: cannot be loaded: {error}. Check the names of data set and split; "
            "where the Hub cannot be reached, download the files and name them: data.train=FILE, without data.hub"
        ) from error
