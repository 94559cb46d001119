"""Questions become rows: those that a model cannot answer have a reason, and share no fate with the others."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from answerers import CONTEXTS, QUESTIONS, open_cpu, save_decisive
from families import FAMILIES
from strict import parse

from qa_ray.answers import QuestionAnswerer
from qa_ray.model.folder import open_model
from qa_ray.prediction.actor import AnswerFormat, fingerprint
from qa_ray.prediction.options import OutFormat
from qa_ray.prediction.parts import InputQuestion


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("answers")
    FAMILIES["bert"].save(place / "tiny")
    save_decisive("bert", place / "tiny", place / "model")
    return place / "model"


@pytest.fixture(scope="module")
def answerer(folder: Path) -> QuestionAnswerer:
    return open_cpu(folder)


def layout(**changes: Any) -> AnswerFormat:
    usual = {"top_k": 1, "handle_impossible": None, "keep_context": False, "out_format": OutFormat.PARQUET}
    return AnswerFormat(**usual | changes)


def input_question(number: int, **changes: Any) -> InputQuestion:
    usual = {"question": QUESTIONS[number], "context": CONTEXTS[number], "reason": None}
    return InputQuestion(record=f"row {number}", id=f"q{number}", **usual | changes)


def test_rows_are_in_order_and_those_with_a_reason_are_not_asked(answerer: QuestionAnswerer) -> None:
    items = [input_question(0), input_question(1, question=None, reason="why"), input_question(2)]
    rows = layout().rows(items, answerer)
    assert list(rows[0]) == ["id", "question", "answer", "score", "start", "end", "reason", "record"]
    assert [row["answer"] for row in rows] == [
        answerer(QUESTIONS[0], CONTEXTS[0])["answer"], None, answerer(QUESTIONS[2], CONTEXTS[2])["answer"]
    ]  # fmt: skip
    assert [row["reason"] for row in rows] == [None, "why", None]


def test_row_that_the_model_cannot_answer_has_a_reason_and_the_others_their_answers(
    answerer: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = answerer(QUESTIONS, CONTEXTS)
    forward = answerer.model.forward
    marked = answerer.tokenizer.convert_tokens_to_ids("…")

    def broken(input_ids: torch.Tensor, **inputs: torch.Tensor) -> Any:
        outputs = forward(input_ids=input_ids, **inputs)
        outputs.start_logits[(input_ids == marked).any(dim=1)] = torch.nan
        return outputs

    monkeypatch.setattr(answerer.model, "forward", broken)
    items = [input_question(number) for number in range(len(QUESTIONS))]
    items[1] = input_question(1, context="…")
    items[4] = input_question(4, context="\u200b")
    rows = layout().rows(items, answerer)
    assert "scores are not finite" in rows[1]["reason"]
    assert rows[4]["reason"] == "context='\\u200b': the tokenizer makes no token of it"
    assert [row["answer"] for number, row in enumerate(rows) if number not in (1, 4)] == [
        result["answer"] for number, result in enumerate(alone) if number not in (1, 4)
    ]


@pytest.mark.parametrize("changes", [{}, {"top_k": 2}, {"keep_context": True}], ids=str)
def test_both_layouts_say_the_same(changes: dict[str, Any], answerer: QuestionAnswerer) -> None:
    items = [input_question(0), input_question(1, context=None, reason="why")]
    parquet, jsonl = (layout(**changes, out_format=out_format) for out_format in OutFormat)
    rows = parquet.rows(items, answerer)
    table = pq.read_table(io.BytesIO(parquet.encode(rows)))
    assert table.schema == parquet.schema()
    assert table.to_pylist() == rows == [json.loads(line) for line in jsonl.encode(rows).decode().splitlines()]
    assert ("context" in rows[0]) is changes.get("keep_context", False)


def test_fingerprint_is_that_of_weights_and_tokenizer(folder: Path) -> None:
    first, second = (open_model(str(folder)) for _ in range(2))
    assert fingerprint(first) == fingerprint(second)
    with torch.no_grad():
        second.model.qa_outputs.bias[0] += 1e-6
    assert fingerprint(first) != fingerprint(second)


def test_row_is_strict_json_whatever_its_score_is(answerer: QuestionAnswerer) -> None:
    jsonl = layout(out_format=OutFormat.JSONL)
    [row] = jsonl.rows([input_question(0)], answerer)
    assert parse(jsonl.encode([row | {"score": math.nan}])) == row | {"score": None}
