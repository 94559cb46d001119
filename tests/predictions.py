"""Jobs of batch answering in tests: a tiny model with a threshold, 30 questions, and the parts that a job leaves."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from answerers import save_scattered
from families import FAMILIES
from ray_runs import NAMES, questions

from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import Precision
from qa_ray.prediction.options import PredictionOptions

ROWS = [{"id": f"q{number}", "question": row["question"], "context": row["context"]} for number, row in
        enumerate(questions(NAMES))]  # fmt: skip
THRESHOLD = -28.0
"""Some questions have answers and some do not: the nearest score is half a point away."""


def prepare(place: Path) -> Path:
    """A run whose model has a threshold, another model, and 30 questions in two files."""
    FAMILIES["bert"].save(place / "tiny")
    save_scattered(place / "run" / "model", place / "tiny", seed=1, threshold=THRESHOLD, max_answer_length=6)
    save_scattered(place / "other", place / "tiny", seed=2, threshold=None, max_answer_length=6)
    (place / "questions").mkdir()
    write_lines(place / "questions" / "a.jsonl", ROWS[:19])
    write_lines(place / "questions" / "b.jsonl", ROWS[19:])
    return place


def asked_of(place: Path, out: Path, **changes: Any) -> PredictionOptions:
    """Options of a job in fp32 on one worker: each takes seconds to start."""
    usual = {
        "model": str(place / "run"),
        "data": str(place / "questions"),
        "part_size": 8,
        "precision": Precision.FP32,
        "cluster": ClusterConfig(num_workers=1, cpus_per_worker=1),
    }
    return PredictionOptions(out=str(out), **usual | changes)


def write_lines(path: Path, rows: list[Any]) -> None:
    """Write each row as JSON, or as the line that it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def parts(out: Path) -> dict[str, int]:
    """When each part was written."""
    return {path.name: path.stat().st_mtime_ns for path in sorted((out / "answers").glob("part-*"))}


def read(out: Path) -> list[dict[str, Any]]:
    """All rows in the order of their parts."""
    paths = sorted((out / "answers").glob("part-*"))
    if all(path.suffix == ".parquet" for path in paths):
        return [row for path in paths for row in pq.read_table(path).to_pylist()]
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


@contextlib.contextmanager
def damaged(path: Path, row_group: int) -> Iterator[None]:
    """Meanwhile a row group of a Parquet file cannot be read; its size and time stay, as with a network's error."""
    column = pq.ParquetFile(path).metadata.row_group(row_group).column(0)
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    begin = column.dictionary_page_offset or column.data_page_offset
    end = begin + column.total_compressed_size
    path.write_bytes(content[:begin] + bytes(end - begin) + content[end:])
    os.utime(path, ns=times)
    try:
        yield
    finally:
        path.write_bytes(content)
        os.utime(path, ns=times)
