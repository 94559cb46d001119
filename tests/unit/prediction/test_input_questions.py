"""Every row of every layout is one question, with an answerable text or the reason why it has none."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qa_ray.config.data import Columns, DataConfig
from qa_ray.data.files import find_files
from qa_ray.data.rows import read_rows
from qa_ray.errors import DataError
from qa_ray.prediction.parts import InputQuestion, input_question


def read(path: Path, **columns: str) -> list[InputQuestion]:
    data = DataConfig(columns=Columns(**columns))
    (source,) = find_files(data, str(path))
    rows = list(read_rows(source, data, answers=False))
    assert [row.share for row in rows] == sorted(row.share for row in rows)
    assert rows[-1].share == 1
    return [input_question(row, data.columns) for row in rows]


def good(record: str, **changes: Any) -> InputQuestion:
    return InputQuestion(**{"record": record, "id": record, "question": "q", "context": "c", "reason": None} | changes)


def test_rows_need_neither_answers_nor_ids(tmp_path: Path) -> None:
    row = {"question": ["q"], "context": ["c"], "unused": [[1]]}
    (tmp_path / "f.jsonl").write_text('\n{"question": "q", "context": "c"}\n')
    pq.write_table(pa.table(row), tmp_path / "f.parquet")
    (tmp_path / "f.csv").write_text("question,context\nq,c\n")
    qas = [{"question": "q"}, {"id": "", "question": "q", "answers": "whatever"}, {"id": 7, "question": "q"}]
    squad = {"data": [{"paragraphs": [{"context": "c", "qas": qas}]}]}
    (tmp_path / "f.json").write_text(json.dumps(squad))
    assert read(tmp_path / "f.jsonl") == [good("f.jsonl line 2")]
    assert read(tmp_path / "f.parquet") == [good("f.parquet row 0")]
    assert read(tmp_path / "f.csv") == [good("f.csv row 0")]
    records = [f"f.json data[0].paragraphs[0].qas[{number}]" for number in range(3)]
    assert read(tmp_path / "f.json") == [good(records[0]), good(records[1]), good(records[2], id="7")]


def test_each_question_of_a_broken_paragraph_has_its_reason(tmp_path: Path) -> None:
    qas = [{"id": "1", "question": "q"}, 5, {"id": "2"}]
    squad = {"data": [{"paragraphs": [{"qas": qas}, {"context": "c", "qas": None}]}, {"title": "t"}]}
    (tmp_path / "f.json").write_text(json.dumps(squad))
    found = read(tmp_path / "f.json")
    assert [(item.id, item.question) for item in found[:3]] == [
        ("1", "q"), ("f.json data[0].paragraphs[0].qas[1]", None), ("2", None)
    ]  # fmt: skip
    assert [item.reason.split(":")[0] for item in found if item.reason] == [
        "context=(missing)", "question=5", "question=(missing)", "qas=None", "paragraphs=(missing)"
    ]  # fmt: skip


def test_csv_rows_that_do_not_fit_keep_their_place(tmp_path: Path) -> None:
    lines = [f'{number},q,"c\n\nc"' for number in range(30)]
    lines[4], lines[5], lines[20], lines[29] = "4,q", "5,q,c,d", '"20",q,\xff', "29"
    (tmp_path / "f.csv").write_bytes("\n\n".join(["id,question,context", *lines]).encode("latin-1"))
    found = read(tmp_path / "f.csv")
    assert [item.record for item in found] == [f"f.csv row {number}" for number in range(30)]
    assert {number: item.reason for number, item in enumerate(found) if item.reason} == {
        4: "row=(not shown): expected 3 cells, found 2",
        5: "row=(not shown): expected 3 cells, found 4",
        20: "context=b'\\xff': is not UTF-8",
        29: "row=(not shown): expected 3 cells, found 1",
    }


def test_line_that_is_not_utf_8_is_a_row_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(b'{"question": "q", "context": "\xff"}\n{"question": "q", "context": "c"}')
    bad, fine = read(tmp_path / "f.jsonl")
    assert (bad.record, bad.reason and "is not UTF-8" in bad.reason) == ("f.jsonl line 1", True)
    assert fine == good("f.jsonl line 2")


def test_first_row_without_a_question_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text('{"context": "c"}\n{"question": "q", "context": "c"}')
    bad, fine = read(tmp_path / "f.jsonl")
    assert bad.reason == "question=(missing): expected a value; the keys there are: context"
    assert fine == good("f.jsonl line 2")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.json", "[{}", "is not JSON"),
        ("f.csv", "question,body\nq,c\n", "no column 'context'; the columns there are: question, body"),
    ],
)
def test_file_of_another_layout_is_an_error(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        read(tmp_path / name)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    pq.write_table(pa.table({"k": [3], "asked": ["q"], "body": ["c"]}), tmp_path / "f.parquet")
    found = read(tmp_path / "f.parquet", id="k", question="asked", context="body")
    assert found == [good("f.parquet row 0", id="3")]


def test_parquet_row_that_is_not_utf8_spoils_no_other(tmp_path: Path) -> None:
    texts = pa.array([b"one", b"\xff", b"three"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"question": ["q"] * 3, "context": texts}), tmp_path / "q.parquet")
    assert [(item.record, item.context, item.reason) for item in read(tmp_path / "q.parquet")] == [
        ("q.parquet row 0", "one", None),
        ("q.parquet row 1", None, "row=(not shown): is not UTF-8"),
        ("q.parquet row 2", "three", None),
    ]
