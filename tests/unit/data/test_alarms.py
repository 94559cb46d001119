"""Rows that are left out are counted, and it is said aloud where next to nothing is left, or of one kind nothing."""

import json

import numpy as np
import pytest
from flat_rows import read

from qa_ray.data.validation import alarms, check, count_rows
from qa_ray.schema import Problem

GOOD, SILENT = {"answers": {"text": ["Ann"], "answer_start": [0]}}, {"answers": None}
BAD = {"answers": {"text": ["Eve"], "answer_start": [0]}}


def left(tmp_path, *rows):
    """What is wrong, and of each question that is left, whether it has an answer."""
    lines = [{"id": str(number), "context": "Ann ran.", "question": "Who?", **row} for number, row in enumerate(rows)]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, lines)))
    passages, problems = read(tmp_path / "f.jsonl")
    checked = [check(passage) for passage in passages]
    problems = problems + [problem for _, found in checked for problem in found]
    return problems, np.array([bool(one.answers) for passage, _ in checked for one in passage.questions], bool)


@pytest.mark.parametrize("rows", [[GOOD], [GOOD, BAD], [SILENT, GOOD, BAD], [GOOD, SILENT, BAD, BAD]], ids=len)
def test_few_bad_rows_are_no_alarm(tmp_path, rows):
    assert alarms(*left(tmp_path, *rows)) == []


def test_most_rows_are_an_alarm_with_their_reasons(tmp_path):
    (alarm,) = alarms(*left(tmp_path, GOOD, BAD, BAD, {**GOOD, "question": ""}))
    assert alarm == (
        "MOST OF THE DATA IS LEFT OUT, 3 of 4 rows: 2 x answers.answer_start answer is not there, 1 x question is empty"
    )


@pytest.mark.parametrize(
    "silent",
    [
        {**GOOD, "is_impossible": True},
        {"answers": {"text": [""], "answer_start": [0]}},
        {"answers": {"text": [""], "answer_start": [None]}},
        {"answers": {"text": ["none"], "answer_start": [-1]}},
        {"answers": "unknown", "answer_start": None},
    ],
    ids=["contradictory", "empty text", "null start", "negative start", "a word for none"],
)
def test_every_unanswerable_question_is_an_alarm(tmp_path, silent):
    (alarm,) = alarms(*left(tmp_path, GOOD, GOOD, GOOD, silent, silent))
    assert alarm.startswith("EVERY QUESTION WITHOUT AN ANSWER IS LEFT OUT, 2 rows: ")
    assert alarms(*left(tmp_path, GOOD, GOOD, SILENT, silent, silent)) == []


def test_every_answered_question_is_an_alarm(tmp_path):
    (alarm,) = alarms(*left(tmp_path, SILENT, SILENT, BAD))
    assert alarm.startswith("EVERY QUESTION WITH AN ANSWER IS LEFT OUT")


def test_row_with_several_problems_is_one():
    problems = [Problem(f"f line {line}", f"answers[{n}].text", "''", "is empty") for line in (1, 2) for n in (0, 1)]
    assert count_rows(problems) == 2
