"""Every layout of a file gives the same passages, and every fault in one is told with its file and row."""

import json
import re
from dataclasses import replace

import pytest
from flat_rows import LISTED, NESTED, ROWS, STARTS, TEXTS, dumped, flat, read, rows_of, write

from qa_ray.benchmark.workload import to_squad
from qa_ray.config.data import Columns, DataConfig
from qa_ray.data.files import find_files
from qa_ray.data.passages import read_passages
from qa_ray.data.validation import check, is_fatal
from qa_ray.schema import Answer, Passage, Question


def contents(passages):
    return [(passage.context, [(one.id, one.text, one.answers) for one in passage.questions]) for passage in passages]


def expected(rows=ROWS):
    contexts = {}
    for identifier, context, text, answers in rows:
        question = (identifier, text, tuple(Answer(*answer) for answer in answers))
        contexts.setdefault(context, []).append(question)
    return list(contexts.items())


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("f.jsonl", flat(NESTED)),
        ("f.jsonl", flat(LISTED)),
        ("f.jsonl", flat(TEXTS, STARTS)),
        ("f.jsonl", flat([a if a else None for a in LISTED])),
        ("f.parquet", flat(NESTED)),
        ("f.parquet", flat(LISTED)),
        ("f.parquet", flat(TEXTS, STARTS)),
        ("f.csv", flat(dumped(NESTED))),
        ("f.csv", flat(dumped(LISTED))),
    ],
    ids=[
        "jsonl-object", "jsonl-list", "jsonl-columns", "jsonl-null", "parquet-struct", "parquet-list",
        "parquet-columns", "csv-object", "csv-list",
    ],
)  # fmt: skip
def test_every_layout_gives_the_same_passages(tmp_path, name, table):
    write(tmp_path / name, table)
    passages, problems = read(tmp_path / name)
    assert problems == []
    assert contents(passages) == expected()
    assert all(check(passage) == (passage, []) for passage in passages)


def test_nested_json_gives_the_same_passages(tmp_path):
    originals = [
        Passage(context, tuple(Question(*question, "") for question in questions)) for context, questions in expected()
    ]
    (tmp_path / "f.json").write_text(json.dumps(to_squad(originals, "t")), encoding="utf-8")
    assert contents(read(tmp_path / "f.json")[0]) == expected()


@pytest.mark.parametrize(
    ("texts", "starts"),
    [
        (["Zoë 🦉", "Ann", "", ""], [0, 10, None, -1]),
        (["Zoë 🦉", "Ann", None, None], ["0", "10.0", "", None]),
        (["Zoë 🦉", "Ann", " ", " "], [0.0, 10.0, None, None]),
    ],
    ids=["integers", "text", "floats"],
)
@pytest.mark.parametrize("name", ["f.jsonl", "f.parquet", "f.csv"])
def test_plain_text_answers_start_where_their_column_says(tmp_path, name, texts, starts):
    write(tmp_path / name, flat(texts, starts))
    passages, problems = read(tmp_path / name)
    assert problems == []
    rows = [(*row[:3], answers) for row, answers in zip(ROWS, [[("Zoë 🦉", 0)], [("Ann", 10)], [], []], strict=True)]
    assert contents(passages) == expected(rows)


def test_plain_text_in_brackets_is_no_json(tmp_path):
    write(tmp_path / "f.csv", flat(["[5]", "{x}", "[", '["a"]'], [1, 2, 3, 4]))
    passages, _ = read(tmp_path / "f.csv")
    answers = {question.id: question.answers for passage in passages for question in passage.questions}
    assert answers == {
        "007": (Answer("[5]", 1),), "8": (Answer("{x}", 2),), "9": (Answer("[", 3),), "10": (Answer('["a"]', 4),)
    }  # fmt: skip


def test_csv_cell_may_hold_line_breaks_and_be_long(tmp_path):
    table = {name: [f"line {index}\r\n\nline" * 9**index for index in range(7)] for name in ("context", "question")}
    write(tmp_path / "f.csv", {**table, "answers": [""] * 7})
    passages, problems = read(tmp_path / "f.csv")
    assert problems == []
    assert [passage.context for passage in passages] == table["context"]


def test_columns_may_have_other_names(tmp_path):
    table = flat(TEXTS, STARTS)
    renamed = {"key": table["id"], "c": table["context"], "q": table["question"], "a": TEXTS, "s": STARTS}
    write(tmp_path / "f.parquet", renamed)
    columns = Columns(id="key", context="c", question="q", answers="a", answer_start="s")
    assert contents(read(tmp_path / "f.parquet", columns=columns)[0]) == expected()
    _, (problem,) = read(tmp_path / "f.parquet", columns=replace(columns, id="no"))
    assert is_fatal(problem)
    assert "there is no column 'no'; the columns there are: key, c, q, a, s" in problem.message


@pytest.mark.parametrize("ids", [[7, 8, 9, 10], [7.0, 8.0, 9.0, 10.0]], ids=["integers", "floats"])
def test_numeric_ids_become_text(tmp_path, ids):
    write(tmp_path / "f.parquet", {**flat(NESTED), "id": ids})
    passages, _ = read(tmp_path / "f.parquet")
    assert {question.id for passage in passages for question in passage.questions} == {"7", "8", "9", "10"}


@pytest.mark.parametrize(
    ("name", "record"), [("f.jsonl", "f.jsonl line 3"), ("f.parquet", "f.parquet row 2"), ("f.csv", "f.csv row 2")]
)
def test_record_tells_file_and_row_and_stands_in_for_a_missing_id(tmp_path, name, record):
    table = flat(LISTED if name != "f.csv" else dumped(LISTED))
    del table["id"]
    write(tmp_path / name, table)
    passages, _ = read(tmp_path / name)
    assert (passages[1].questions[0].record, passages[1].questions[0].id) == (record, record)


def test_row_numbers_go_on_over_batches_and_a_context_comes_once(tmp_path):
    num_rows = 1030
    table = {name: [values[0]] * num_rows for name, values in flat(NESTED).items()}
    table["context"] = [f"context {index // 2}" for index in range(num_rows)]
    write(tmp_path / "f.parquet", table)
    passages, _ = read(tmp_path)
    assert [passage.context for passage in passages] == [f"context {index}" for index in range(num_rows // 2)]
    assert passages[-1].questions[-1].record == f"f.parquet row {num_rows - 1}"


@pytest.mark.parametrize(
    ("line", "field", "value", "message"),
    [
        ('{"id": 1,', "line", """'{"id": 1,'""", "is not JSON: Expecting property name"),
        ("[1]", "line", "'[1]'", "expected a JSON object"),
        ({"question": None}, "question", "None", "expected text"),
        ({"context": 5}, "context", "5", "expected text"),
        ({"id": [1]}, "id", "[1]", "expected text or a whole number"),
        ({"answers": {"text": ["x"]}}, "answers.answer_start", "(missing)", "the keys there are: text"),
        ({"answers": [{"answer_start": 0}]}, "answers[0].text", "(missing)", "the keys there are: answer_start"),
        ({"answers": {"text": ["x", "y"], "answer_start": [1]}}, "answers.answer_start", "[1]", "2 texts and 1 starts"),
        ({"answers": {"text": [3], "answer_start": [1]}}, "answers[0].text", "3", "expected text"),
        ({"answers": "x", "answer_start": "one"}, "answer_start[0]", "'one'", "expected a whole number"),
        ({"answers": "x", "answer_start": None}, "answer_start[0]", "None", "expected a whole number"),
        ({"answers": "x", "answer_start": 1.5}, "answer_start[0]", "1.5", "expected a whole number"),
    ],
)
def test_bad_row_is_a_problem_and_the_rows_around_it_are_read(tmp_path, line, field, value, message):
    first, last = rows_of(flat(LISTED))[:2]
    text = line if isinstance(line, str) else json.dumps({**first, **line})
    (tmp_path / "f.jsonl").write_text("\n".join([json.dumps(first), "", text, json.dumps(last)]), encoding="utf-8")
    passages, (problem,) = read(tmp_path / "f.jsonl")
    assert [question.record for question in passages[0].questions] == ["f.jsonl line 1", "f.jsonl line 4"]
    assert (problem.record, problem.field, problem.value) == ("f.jsonl line 3", field, value)
    assert message in problem.message
    assert not is_fatal(problem)


def test_key_that_only_one_line_lacks_is_a_problem_of_this_line(tmp_path):
    lines = [json.dumps({key: row[key] for key in row if key != drop})
             for row, drop in zip(rows_of(flat(LISTED)), ["", "question", "id", ""], strict=True)]  # fmt: skip
    (tmp_path / "f.jsonl").write_text("\n".join(lines), encoding="utf-8")
    _, problems = read(tmp_path / "f.jsonl")
    assert [(problem.record, problem.field, problem.value) for problem in problems] == [
        ("f.jsonl line 2", "question", "(missing)"), ("f.jsonl line 3", "id", "(missing)")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.json", b'{"data": [}', "is not JSON"),
        ("f.jsonl", b'{"context": "x"}', "no column 'question'; the columns there are: context. Name the right one"),
        ("f.parquet", b"not parquet", "cannot be read as Parquet"),
        ("f.csv", b"id,context,question,answer\n", "data.columns.answers=..."),
        ("f.csv", b"", "cannot be read as CSV"),
        ("f.csv", 9_000_000 * b"c", "cannot be read as CSV: field larger"),
    ],
)
def test_file_that_cannot_be_read_is_a_fatal_problem(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    passages, (problem,) = read(tmp_path / name)
    assert passages == []
    assert is_fatal(problem)
    assert problem.record.startswith(name)
    assert message in problem.message


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("f.csv", b"c,q,c", "row 1: answers='c': is plain text, .* data.columns.answer_start=..."),
        ("f.csv", b"c,\xff,[]", r"row 1: question=b'\\xff': is not UTF-8"),
        ("f.csv", b"c,q", "row 1: row=.*: expected 3 cells, found 2"),
        ("f.csv", b'c,"q', "row 1: row=.*: unexpected end of data: is a quote left open?"),
        ("f.csv", b'"c,q"x', "row 1: row=.*: ',' expected after '\"': is a quote left open?"),
        ("f.csv", b'"c\nd",q', "row 1: row=.*: expected 3 cells, found 2"),
        ("f.csv", b"c" * 9_000_000, "row 1: row=.*: field larger than field limit"),
        ("f.jsonl", b'{"context": "\xff"}', "line 2: line=b'{.*: is not UTF-8"),
    ],
)
def test_row_that_cannot_be_read_spoils_no_other(tmp_path, name, row, words):
    table = {"context": ["c"], "question": ["q"], "answers": [None]}
    write(tmp_path / name, table)
    good = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(good + row + b"\n" + good.splitlines()[-1])
    (passage,), (problem,) = read(tmp_path / name)
    assert len(passage.questions) == 2
    assert not is_fatal(problem)
    assert re.search(words, str(problem))


@pytest.mark.parametrize("name", ["f.jsonl", "f.csv", "f.parquet"])
def test_flat_rows_say_like_nested_ones_whether_there_is_an_answer(tmp_path, name):
    answers = [LISTED[0], LISTED[1], LISTED[2], LISTED[2]]
    table = flat(dumped(answers) if name == "f.csv" else answers)
    write(tmp_path / name, {**table, "is_impossible": [False, True, False, True]})
    passages, problems = read(tmp_path / name)
    assert {question.id: len(question.answers) for passage in passages for question in passage.questions} == {
        "007": 1, "10": 0
    }  # fmt: skip
    assert ["expected no answers" in problem.message for problem in problems] == [True, False]


def test_file_that_is_gone_on_the_reading_node_is_a_fatal_problem(tmp_path):
    write(tmp_path / "f.jsonl", flat(LISTED))
    sources = find_files(DataConfig(), str(tmp_path))
    (tmp_path / "f.jsonl").unlink()
    (problem,) = read_passages(sources, DataConfig())
    assert is_fatal(problem)
    assert "must be there on every node" in problem.message


@pytest.mark.parametrize("head", [b"\xef\xbb\xbf", b""], ids=["byte-order-mark", "plain"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["crlf", "lf"])
def test_jsonl_and_csv_of_other_systems_are_read(tmp_path, head, end):
    rows = [json.dumps(row, ensure_ascii=False).encode() for row in rows_of(flat(LISTED))]
    (tmp_path / "f.jsonl").write_bytes(head + end.join(rows))
    assert contents(read(tmp_path / "f.jsonl")[0]) == expected()
    (tmp_path / "f.csv").write_bytes(head + end.join([b"id,context,question,answers", b"1,c,q,[]"]))
    assert contents(read(tmp_path / "f.csv")[0]) == [("c", [("1", "q", ())])]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("name", ["f.jsonl", "f.parquet"])
def test_max_examples_counts_questions_over_all_files(tmp_path, name, limit):
    write(tmp_path / name, flat(LISTED))
    write(tmp_path / name.replace("f", "g"), flat(LISTED))
    assert contents(read(tmp_path / name, limit)[0]) == expected(ROWS[:limit])
    assert contents(read(tmp_path, limit)[0]) == expected((ROWS * 2)[:limit])
