"""Files become a Ray Dataset of passages: each row once, and faults travel as rows."""

import json

import datasets
import pyarrow as pa
import pytest
import ray

from qa_ray.config.data import DataConfig
from qa_ray.data.pipeline import passages_dataset
from qa_ray.data.validation import is_fatal
from qa_ray.schema import PASSAGES, table_to_passages

pytestmark = pytest.mark.usefixtures("ray_cluster")


def line(identifier, context):
    return json.dumps({"id": identifier, "context": context, "question": "Who?", "answers": []})


def collect(dataset):
    followed = dataset.map_batches(lambda table: table, batch_size=None, batch_format="pyarrow")
    blocks = [table for table in map(ray.get, followed.to_arrow_refs()) if table.num_rows]
    assert all(table.schema == PASSAGES for table in blocks)
    found, problems = table_to_passages(pa.concat_tables(blocks))
    return sorted(question.id for passage in found for question in passage.questions), problems, blocks


@pytest.fixture
def folder(tmp_path):
    good = [line(f"{index:04}", f"context {index}") for index in range(1500)]
    (tmp_path / "a.jsonl").write_text("\n".join(good), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("\n".join([line("b1", "c"), "not JSON", line("b2", "c")]), encoding="utf-8")
    (tmp_path / "c.jsonl").write_text('{"context": "no question"}', encoding="utf-8")
    (tmp_path / "d.jsonl").write_text("", encoding="utf-8")
    return tmp_path


def test_rows_and_problems_of_all_files_arrive_once(folder):
    ids, problems, blocks = collect(passages_dataset(DataConfig(), str(folder), None))
    assert ids == sorted([f"{index:04}" for index in range(1500)] + ["b1", "b2"])
    assert sorted((problem.record, is_fatal(problem)) for problem in problems) == [
        ("b.jsonl line 2", False), ("c.jsonl", True)
    ]  # fmt: skip
    assert max(table.num_rows for table in blocks) <= 512  # else the step after runs in one task for a file


def test_max_examples_holds_over_all_files(folder):
    ids, problems, _ = collect(passages_dataset(DataConfig(), str(folder), 1501))
    assert len(ids) == 1501
    assert problems == []


def test_hub_data_set_arrives_in_the_same_form(monkeypatch):
    table = {"id": ["a"], "context": ["c"], "question": ["q"], "answers": [{"text": ["c"], "answer_start": [0]}]}
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: datasets.Dataset.from_dict(table))
    ids, problems, _ = collect(passages_dataset(DataConfig(hub="x/y"), "train", None))
    assert (ids, problems) == (["a"], [])
