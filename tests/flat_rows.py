"""Questions in flat rows for tests: a few, with every layout of their answers, in files of every layout."""

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qa_ray.config.data import DataConfig
from qa_ray.data.passages import read_split
from qa_ray.schema import Passage, Problem

Table = dict[str, list[Any]]
"""Values of each row by column."""

ROWS = [
    ("007", "Zoë 🦉 met Ann.\nThen, Bob.", 'Who met "Ann"?', [("Zoë 🦉", 0)]),
    ("8", "Zoë 🦉 met Ann.\nThen, Bob.", "Who else?", [("Ann", 10), ("Bob", 21)]),
    ("9", "Second, context", "Why?", []),
    ("10", "Zoë 🦉 met Ann.\nThen, Bob.", "Again?", [("Bob", 21)]),
]
NESTED = [{"text": [t for t, _ in a], "answer_start": [s for _, s in a]} for *_, a in ROWS]
LISTED = [[{"text": t, "answer_start": s} for t, s in a] for *_, a in ROWS]
TEXTS = [[t for t, _ in a] for *_, a in ROWS]
STARTS = [[s for _, s in a] for *_, a in ROWS]


def flat(answers: list[Any], starts: list[Any] | None = None) -> Table:
    """The rows with these answers, and the starts in a column of their own."""
    table = {
        "id": [row[0] for row in ROWS],
        "context": [row[1] for row in ROWS],
        "question": [row[2] for row in ROWS],
        "answers": answers,
        "title": ["unused"] * len(ROWS),
    }
    return table if starts is None else {**table, "answer_start": starts}


def rows_of(table: Table) -> list[dict[str, Any]]:
    """The same row by row."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def write(path: Path, table: Table) -> None:
    """Write a table in the layout of the file's ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path, row_group_size=3)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows_of(table))
        elif path.suffix == ".json":
            json.dump({"version": "0.1.0", "data": rows_of(table)}, file, indent=1)
        else:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([list(table), *(row.values() for row in rows_of(table))])


def packed(content: bytes, ending: str) -> bytes:
    """Content as the tool of a compression's ending leaves it."""
    if ending == ".zst":
        return bytes(pa.compress(content, "zstd", asbytes=True))
    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending](content)


def read(path: Path, max_examples: int | None = None, **options: Any) -> tuple[list[Passage], list[Problem]]:
    """Read a file or a folder; `options` are fields of `DataConfig`."""
    return read_split(DataConfig(**options), str(path), max_examples)


def dumped(values: Sequence[Any]) -> list[str]:
    """Values as JSON, as a cell of CSV takes them."""
    return [json.dumps(value) for value in values]
