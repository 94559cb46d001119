"""Which answers a flat row states, where that can be said in more than one way."""

import json

import pytest
from flat_rows import LISTED, dumped, flat, read, rows_of, write

from qa_ray.config.policies import ImpossibleAnswers
from qa_ray.data.validation import check

CODE = "In Python, list() returns [] and dict() returns {}; [{}] is a list of one."


@pytest.mark.parametrize(
    ("text", "start", "answers"),
    [
        ("[]", CODE.index("[]"), ["[]"]),
        ("{}", CODE.index("{}"), ["{}"]),
        ("[{}]", CODE.index("[{}]"), ["[{}]"]),
        ('{"text": ["In"], "answer_start": [0]}', 3, ["In"]),
        ('{"text": [], "answer_start": []}', 3, []),
        ("[]", None, []),
        ("[]", -1, []),
    ],
    ids=["list", "dict", "both", "JSON with its starts", "JSON without answers", "no start", "a start that is none"],
)
@pytest.mark.parametrize("form", [int, float, str, lambda number: [number]], ids=["int", "float", "text", "list"])
@pytest.mark.parametrize("name", ["f.jsonl", "f.parquet", "f.csv"])
def test_brackets_are_an_answer_where_a_start_is_given_for_them(tmp_path, name, form, text, start, answers):
    cell = None if start is None else form(start)
    if name == "f.csv" and isinstance(cell, list):
        cell = cell[0]  # it has no lists
    question = {"id": ["1"], "context": [CODE], "question": ["What does it return?"]}
    write(tmp_path / name, {**question, "answers": [text], "answer_start": [cell]})
    (passage,), problems = read(tmp_path / name)
    assert problems == []
    assert [answer.text for answer in passage.questions[0].answers] == answers
    assert check(passage) == (passage, [])


@pytest.mark.parametrize("start", [None, float("nan"), "", " "], ids=["null", "NaN", "empty", "blank"])
@pytest.mark.parametrize("nothing", [None, float("nan"), "", "[]"], ids=["null", "NaN", "empty", "brackets"])
@pytest.mark.parametrize("name", ["f.jsonl", "f.csv"])
def test_nothing_with_no_start_is_no_answer(tmp_path, name, nothing, start):
    row = {"id": ["1"], "context": ["c"], "question": ["q"], "answers": [nothing], "answer_start": [start]}
    if name == "f.csv" and nothing != nothing:
        row["answers"] = [""]  # as pandas writes it
    write(tmp_path / name, row)
    (passage,), problems = read(tmp_path / name)
    assert (passage.questions[0].answers, problems) == ((), [])


@pytest.mark.parametrize("word", ["nan", "NaN", "None", " null "])
@pytest.mark.parametrize("name", ["f.jsonl", "f.csv", "f.parquet"])
def test_word_for_nothing_is_an_answer_only_where_a_start_is_given(tmp_path, name, word):
    row = {"id": ["1", "2"], "context": [word] * 2, "question": ["q"] * 2, "answers": [word] * 2}
    write(tmp_path / name, {**row, "answer_start": [None, 0]})
    (passage,), problems = read(tmp_path / name)
    assert problems == []
    assert [[answer.text for answer in one.answers] for one in passage.questions] == [[], [word]]
    write(tmp_path / name, row)
    (passage,), problems = read(tmp_path / name)
    assert problems == []
    assert [one.answers for one in passage.questions] == [(), ()]


IMPOSSIBLE_FORMS = {
    "flags": [False, True, None],
    "numbers": [0, 1, None],
    "floats": [0.0, 1.0, float("nan")],
    "words": ["False", "True", ""],
    "small words": ["false", " true", "nan"],
}


@pytest.mark.parametrize("form", IMPOSSIBLE_FORMS)
@pytest.mark.parametrize("name", ["f.jsonl", "f.parquet", "f.csv"])
def test_answers_of_an_impossible_question_are_an_error_or_are_ignored(tmp_path, name, form):
    answers = [LISTED[0], LISTED[1], LISTED[3]]
    table = {column: values[:3] for column, values in flat(answers).items()}
    table["answers"] = dumped(answers) if name == "f.csv" else answers
    table["plausible_answers"] = table["answers"]
    write(tmp_path / name, {**table, "is_impossible": IMPOSSIBLE_FORMS[form]})
    _, (problem,) = read(tmp_path / name)
    assert problem.record == {"f.jsonl": "f.jsonl line 2"}.get(name, f"{name} row 1")
    assert (problem.field, problem.message) == (
        "answers",
        "expected no answers where is_impossible is true: drop the answers, set it to false, or, if they are only "
        "plausible ones, set data.impossible_answers=ignore",
    )
    passages, problems = read(tmp_path / name, impossible_answers=ImpossibleAnswers.IGNORE)
    assert problems == []
    assert [[len(one.answers) for one in passage.questions] for passage in passages] == [[1, 0], [1]]


def test_lines_that_say_nothing_of_impossible_are_as_their_answers_say(tmp_path):
    said = [{}, {"is_impossible": True}, {"is_impossible": True, "plausible_answers": LISTED[0]}, {}]
    rows = [{**row, **more} for row, more in zip(rows_of(flat([LISTED[0], LISTED[1], [], []])), said, strict=True)]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    passages, (problem,) = read(tmp_path / "f.jsonl")
    assert problem.record == "f.jsonl line 2"
    assert {one.id: len(one.answers) for passage in passages for one in passage.questions} == {
        "007": 1,
        "9": 0,
        "10": 0,
    }
