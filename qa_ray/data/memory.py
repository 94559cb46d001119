"""Questions in memory: put into a file, so that they are read, checked and known as those of a file are."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict

from qa_ray.errors import DataError
from qa_ray.locations import within
from qa_ray.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

Questions: TypeAlias = Union[
    str, os.PathLike[str], Dataset, "pd.DataFrame", Sequence[Mapping[str, Any]], Mapping[str, Any]
]
"""A location of questions; or the questions: a datasets.Dataset, a pandas.DataFrame, a list of rows as dicts, or nested
SQuAD as one dict."""

FOLDER = "data"
"""Holds such files, beside the runs that use them."""


def stored(questions: Questions, place: str) -> str:
    """Return the location of questions; those in memory are written into a file in `place`, named by their content.

    Args:
        questions: see `Questions`.
        place: folder or URI, seen by every node of a cluster.

    Raises:
        DataError: they are of another kind, or cannot be written as rows.
        StorageError: the place cannot be written.
    """
    if isinstance(questions, str | os.PathLike):
        return os.fspath(questions)
    content, ending = _encoded(questions)
    name = f"{hashlib.sha256(content).hexdigest()[:16]}{ending}"
    folder = RunFolder.at(within(place, FOLDER))
    # A job that goes on knows its files by the time of their writing too.
    if folder.read(name) is None:
        folder.write(name, content)
    return within(folder.uri, name)


def _encoded(questions: Any) -> tuple[bytes, str]:
    """The content of a file that holds them, and its ending."""
    if isinstance(questions, DatasetDict):
        raise DataError("a DatasetDict holds several splits: give one of them, such as dataset['train']")
    try:
        if isinstance(questions, Dataset):
            return _parquet(questions.with_format("arrow")[:]), ".parquet"
        if hasattr(questions, "to_parquet") and hasattr(questions, "columns"):
            return _parquet(pa.Table.from_pandas(questions, preserve_index=False)), ".parquet"
        if isinstance(questions, Mapping):
            return _json(questions).encode(), ".json"
        if isinstance(questions, Sequence) and all(isinstance(row, Mapping) for row in questions):
            return "".join(f"{_json(dict(row))}\n" for row in questions).encode(), ".jsonl"
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"the questions in memory cannot be written as rows: {error}. Give texts, numbers, and lists or dicts of "
            "these"
        ) from error
    raise DataError(
        f"questions cannot be a {type(questions).__name__}: give a path, a datasets.Dataset, a pandas.DataFrame, a "
        "list of dicts, or nested SQuAD as a dict"
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON has for numbers and arrays of numpy."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is neither text nor a number")


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())
