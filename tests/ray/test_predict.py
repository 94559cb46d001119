"""The prediction job on a local cluster, with a tiny model: one row for each question, whatever is bad or killed."""

import dataclasses
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from answerers import assert_same, open_cpu
from predictions import ROWS, asked_of, damaged, parts, prepare, read, write_lines
from ray_runs import NAMES, write_squad

from qa_ray.config.data import Columns
from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import AnswerPrecision, NoAnswer
from qa_ray.errors import ClusterError, ConfigError, DataError, ModelError, StorageError
from qa_ray.prediction import job
from qa_ray.prediction.job import predict
from qa_ray.prediction.options import OutFormat, PredictionOptions
from qa_ray.prediction.result import summary

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("predict"))


@pytest.fixture
def options(place: Path, tmp_path: Path) -> Callable[..., PredictionOptions]:
    return lambda out=tmp_path / "out", **changes: asked_of(place, out, **changes)


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[Path, str]:
    """The folder of a job on as many workers as the cluster has CPUs, and what it said."""
    out = place / "finished"
    return out, summary(predict(asked_of(place, out, cluster=ClusterConfig(num_workers=2, cpus_per_worker=1))))


def test_every_question_has_the_answer_that_the_answerer_gives(place: Path, finished: tuple[Path, str]) -> None:
    out, shown = finished
    rows = read(out)
    assert [(row["id"], row["question"]) for row in rows] == [(row["id"], row["question"]) for row in ROWS]
    assert_same(rows, open_cpu(place / "run")(ROWS))
    assert {bool(row["answer"]) for row in rows} == {True, False}, "the threshold decides nothing"
    assert {row["reason"] for row in rows} == {None}
    assert [row["record"] for row in rows[18:20]] == ["a.jsonl line 19", "b.jsonl line 1"]
    assert list(parts(out)) == [
        "part-00000-000000.parquet", "part-00000-000001.parquet", "part-00000-000002.parquet",
        "part-00001-000000.parquet", "part-00001-000001.parquet",
    ]  # fmt: skip
    assert "30 questions answered" in shown
    assert "30 rows in 5 files" in shown


def test_bad_rows_are_written_with_their_reasons_and_spoil_no_other(
    options: Callable[..., PredictionOptions], place: Path, tmp_path: Path
) -> None:
    good = {name: ROWS[0][name] for name in ("question", "context")}
    bad = [
        ({"question": " "}, "question=' ': is empty"),
        ({"context": ""}, "context='': is empty"),
        ({"question": 5}, "question=5: expected text"),
        ({"context": None}, "context=None: expected text"),
        ({"context": "\u200b\u200c"}, "the tokenizer makes no token of it"),
        ({"id": [1]}, "id=[1]: expected text or a whole number"),
        ({"context": "half \ud800"}, "half a surrogate pair"),
    ]
    lines = [good, *(line for change, _ in bad for line in (good | change, good)), '{"question"', "[]", "", good]
    write_lines(tmp_path / "bad.jsonl", lines)
    shown = summary(predict(options(data=str(tmp_path / "bad.jsonl"), out_format=OutFormat.JSONL)))
    rows = read(tmp_path / "out")
    wrong = [row for row in rows if row["reason"] is not None]
    assert len(rows) == len(lines) - 1
    assert len(wrong) == len(bad) + 2
    for row, words in zip(wrong, [*(words for _, words in bad), "is not JSON", "expected a JSON object"], strict=True):
        assert words in row["reason"]
        assert [row[name] for name in ("answer", "score", "start", "end")] == [None] * 4
    right = [row for row in rows if row["reason"] is None]
    assert_same(right, [open_cpu(place / "run")(good)] * len(right))
    assert {row["id"] for row in right} == {row["record"] for row in right}
    assert f"{len(wrong)} of them have a reason" in shown


def test_several_answers_are_a_list_beside_the_context(
    options: Callable[..., PredictionOptions], place: Path, tmp_path: Path
) -> None:
    chosen = {"top_k": 3, "no_answer": NoAnswer.NEVER, "keep_context": True, "max_answer_length": 2}
    expected = open_cpu(place / "run")(ROWS, top_k=3, handle_impossible_answer=False, max_answer_len=2)
    for number, out_format in enumerate(OutFormat):
        out = tmp_path / str(number)
        predict(options(**chosen, out=str(out), out_format=out_format))
        rows = read(out)
        assert [row["context"] for row in rows] == [row["context"] for row in ROWS]
        for row, answers in zip(rows, expected, strict=True):
            assert len(row["answers"]) == 3
            assert_same(row["answers"], answers)


@pytest.mark.parametrize("layout", ["json", "csv", "parquet", "json.gz"])
def test_every_layout_is_answered_without_answers(
    layout: str, options: Callable[..., PredictionOptions], place: Path, tmp_path: Path
) -> None:
    path, chosen = tmp_path / f"q.{layout}", {}
    if layout == "json":
        content = json.loads(write_squad(path, NAMES).read_text())
        for paragraph in content["data"][0]["paragraphs"]:
            paragraph["qas"] = [{"question": qa["question"]} for qa in paragraph["qas"]]
        path.write_text(json.dumps(content))
    elif layout == "json.gz":
        rows = [{"question": row["question"], "context": row["context"]} for row in ROWS]
        path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    else:
        table = pa.table({"asked": [r["question"] for r in ROWS], "body": [r["context"] for r in ROWS]})
        pq.write_table(table, path) if layout == "parquet" else pa.csv.write_csv(table, path)
        chosen = {"columns": Columns(question="asked", context="body")}
    predict(options(data=str(path), max_examples=20, **chosen))
    assert_same(read(tmp_path / "out"), open_cpu(place / "run")(ROWS[:20]))


def test_what_is_written_is_not_done_again(options: Callable[..., PredictionOptions], tmp_path: Path) -> None:
    predict(options())
    before = parts(tmp_path / "out")
    assert "nothing is left to do" in summary(predict(options()))
    victim, emptied = list(before)[1], list(before)[3]
    (tmp_path / "out" / "answers" / victim).unlink()
    (tmp_path / "out" / "answers" / emptied).write_bytes(b"")
    half = tmp_path / "out" / "answers" / f".{victim}.0123"
    half.write_bytes(b"half")
    shown = summary(predict(options()))
    after = parts(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} == {victim, emptied}
    assert [row["id"] for row in read(tmp_path / "out")] == [row["id"] for row in ROWS]
    assert "16 questions answered" in shown
    assert "14 more were answered before" in shown
    assert not half.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "other"}, r"model: .*run there, .*other now"),
        ({"top_k": 2}, "top_k: 1 there, 2 now"),
        ({"part_size": 9}, "part_size: 8 there, 9 now"),
        ({"max_answer_length": 3}, "max_answer_length: 6 there, 3 now"),
        ({"data": "questions/a.jsonl"}, "the files of --data"),
    ],
    ids=["model", "answers", "parts", "settings", "data"],
)
def test_another_job_may_not_write_into_the_folder(
    changes: dict[str, Any], words: str, place: Path, finished: tuple[Path, str]
) -> None:
    out, _ = finished
    before = parts(out)
    paths = {name: str(place / value) for name, value in changes.items() if name in ("model", "data")}
    with pytest.raises(StorageError, match=f"begun with another model.*{words}.*choose another --out"):
        predict(asked_of(place, out, **changes | paths))
    assert parts(out) == before


def test_file_that_cannot_be_read_to_its_end_is_told_once_all_else_is_written(
    options: Callable[..., PredictionOptions], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    table = pa.table({"question": [r["question"] for r in ROWS], "context": [r["context"] for r in ROWS]})
    for name in ("a", "b", "c"):
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet", row_group_size=10)
    (tmp_path / "data" / "c.parquet").write_bytes(b"PAR1 but no more")
    given = options(data=str(tmp_path / "data"), part_size=8)
    words = r"2 of 3 files cannot be read to their end; all questions before that and in the other files are answered.*"
    with damaged(tmp_path / "data" / "b.parquet", row_group=2):
        for _ in range(2):
            with pytest.raises(DataError, match=words) as raised:
                predict(given)
            assert "b.parquet, after 20 rows: cannot be read on node" in str(raised.value)
            assert "c.parquet, after 0 rows: cannot be read as" in str(raised.value)
            assert list(parts(tmp_path / "out"))[-1] == "part-00001-000002-incomplete.parquet"
            records = [row["record"] for row in read(tmp_path / "out")]
            assert records == [f"a.parquet row {row}" for row in range(30)] + [
                f"b.parquet row {row}" for row in range(20)
            ]
    # It can be read again; the other one still cannot.
    with pytest.raises(DataError, match="1 of 3 files cannot be read"):
        predict(given)
    records = [row["record"] for row in read(tmp_path / "out")]
    assert records == [f"{name}.parquet row {row}" for name in "ab" for row in range(30)]


def test_model_that_another_node_has_not_ends_the_job_in_words(
    options: Callable[..., PredictionOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here the driver sees another one than the actors do.
    monkeypatch.setattr(job, "fingerprint", lambda saved: "of another model")
    with pytest.raises(ModelError, match=r"node [\d.]+: .*run is not the model that the job began with"):
        predict(options())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "/no/such/model"}, ModelError, "/no/such/model: there is no such folder"),
        ({"data": "/no/such.json"}, DataError, "/no/such.json"),
        (
            {"columns": Columns(question="asked")},
            DataError,
            "none of the first 19 rows can be answered; a.jsonl line 1",
        ),
        ({"max_length": 513}, ConfigError, "--max-length=513 is beyond the 512 tokens that .*run takes"),
        ({"max_length": 12, "stride": 11}, ConfigError, "--stride=11 leaves no room"),
        ({"out": "/dev/null/out"}, StorageError, "--out=/dev/null/out cannot be"),
        ({"precision": AnswerPrecision.FP16}, ConfigError, "--precision=fp16 needs a GPU"),
        ({"cluster": ClusterConfig(num_workers=9)}, ClusterError, "room for"),
    ],
    ids=["model", "data", "column", "window", "stride", "folder", "precision", "workers"],
)
def test_mistake_is_found_before_anything_is_computed(
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
    options: Callable[..., PredictionOptions],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "PartAnswerer", None)
    with pytest.raises(error, match=words):
        predict(dataclasses.replace(options(), **changes))


def test_answers_go_to_an_object_store(options: Callable[..., PredictionOptions], s3_folder: str) -> None:
    given = options(out=s3_folder)
    assert "30 rows in 5 files" in summary(predict(given))
    assert "nothing is left to do" in summary(predict(given))
