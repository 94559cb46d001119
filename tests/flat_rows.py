"""Questions in flat rows for tests: a few, with every layout of their answers, as JSONL, Parquet or CSV."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qa_ray.config.fine_tuning import DataConfig
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
        else:
            csv.writer(file).writerows([list(table), *(row.values() for row in rows_of(table))])


def read(path: Path, max_examples: int | None = None, **options: Any) -> tuple[list[Passage], list[Problem]]:
    """Read a file or a folder; `options` are fields of `DataConfig`."""
    return read_split(DataConfig(**options), str(path), max_examples)


def dumped(values: Sequence[Any]) -> list[str]:
    """Values as JSON, as a cell of CSV takes them."""
    return [json.dumps(value) for value in values]
