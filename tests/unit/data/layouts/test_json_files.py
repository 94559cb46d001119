"""Files called .json hold documents or lines, nested or flat rows; one odd row never condemns its file."""

import json

import pytest
from flat_rows import LISTED, flat, read, rows_of

from qa_ray.config.data import Columns, DataConfig
from qa_ray.data.files import find_files
from qa_ray.data.passages import read_passages
from qa_ray.data.rows import read_rows
from qa_ray.data.validation import is_fatal

CONTEXT = "The river Vltava flows through Prague."
ANSWERS = {"text": ["Vltava"], "answer_start": [10]}
ROW = {"id": "1", "context": CONTEXT, "question": "Which river?", "answers": ANSWERS}
OTHER = {
    "id": "2",
    "context": "Brno lies on two.",
    "question": "Which city?",
    "answers": {"text": ["Brno"], "answer_start": [0]},
}
PARAGRAPH = {
    "context": CONTEXT,
    "qas": [{"id": "1", "question": "Which river?", "answers": [{"text": "Vltava", "answer_start": "10"}]}],
}
ARTICLE = {"title": "Rivers", "paragraphs": [PARAGRAPH]}

VALUES = {
    "array of rows": ([ROW, OTHER], ["[0]", "[1]"]),
    "data of rows": ({"version": "0.1.0", "data": [ROW, OTHER]}, ["data[0]", "data[1]"]),
    "array of paragraphs": ([PARAGRAPH], ["[0].qas[0]"]),
    "data of paragraphs": ({"data": [PARAGRAPH]}, ["data[0].qas[0]"]),
    "array of articles": ([ARTICLE], ["[0].paragraphs[0].qas[0]"]),
    "nested": ({"data": [ARTICLE]}, ["data[0].paragraphs[0].qas[0]"]),
    "rows beside articles": ([ARTICLE, OTHER], ["[0].paragraphs[0].qas[0]", "[1]"]),
    "one article": (ARTICLE, ["paragraphs[0].qas[0]"]),
    "one paragraph": (PARAGRAPH, ["qas[0]"]),
    "one row": (ROW, [""]),
}


def said(passages):
    return {
        question.id: (passage.context, question.text, [(one.text, one.answer_start) for one in question.answers])
        for passage in passages
        for question in passage.questions
    }


BOTH = {
    "1": (CONTEXT, "Which river?", [("Vltava", 10)]),
    "2": ("Brno lies on two.", "Which city?", [("Brno", 0)]),
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order-mark"])
@pytest.mark.parametrize("indent", [None, 1], ids=["one line", "indented"])
@pytest.mark.parametrize("form", VALUES)
def test_documents_of_every_shape(tmp_path, form, indent, mark):
    value, records = VALUES[form]
    (tmp_path / "f.json").write_bytes(mark + json.dumps(value, indent=indent).encode() + b"\n")
    passages, problems = read(tmp_path / "f.json")
    assert problems == []
    assert said(passages) == {key: BOTH[key] for key in sorted(BOTH)[: len(records)]}
    line = "line 1 " if indent is None and form.startswith("one ") else ""
    assert [question.record for passage in passages for question in passage.questions] == [
        f"f.json {line}{record}".rstrip() for record in records
    ]


@pytest.mark.parametrize("name", ["f.json", "f.jsonl"])
@pytest.mark.parametrize("lines", [[ROW, OTHER], [PARAGRAPH, OTHER], [ARTICLE, OTHER], [ROW]], ids=str)
def test_lines_of_every_shape(tmp_path, name, lines):
    (tmp_path / name).write_text("\n\n".join(map(json.dumps, lines)))
    passages, problems = read(tmp_path / name)
    assert problems == []
    assert said(passages) == {key: BOTH[key] for key in sorted(BOTH)[: len(lines)]}


def test_empty_list_holds_no_question(tmp_path):
    (tmp_path / "f.json").write_text("[]")
    assert read(tmp_path / "f.json") == ([], [])


@pytest.mark.parametrize("form", ["array of rows", "data of rows"])
@pytest.mark.parametrize("odd", [5, None, "x", ["x"], {}, {"title": "t"}, {**ROW, "context": None}], ids=str)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_odd_item_of_a_list_spoils_no_other(tmp_path, form, odd, place):
    rows = [ROW, OTHER]
    rows.insert(place, odd)
    (tmp_path / "f.json").write_text(json.dumps(rows if form == "array of rows" else {"data": rows}))
    passages, (problem,) = read(tmp_path / "f.json")
    assert said(passages) == BOTH
    assert not is_fatal(problem)
    assert problem.record == f"f.json {'' if form == 'array of rows' else 'data'}[{place}]"


@pytest.mark.parametrize("odd", ["{}", "7", "[]", '{"id": 3', "", "# rows", '{"question": "q"}', '{"context": "c"}'])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", ["f.json", "f.jsonl"])
def test_odd_line_spoils_no_other(tmp_path, name, odd, place):
    lines = [json.dumps(ROW), json.dumps(OTHER)]
    lines.insert(place, odd)
    (tmp_path / name).write_text("\n".join(lines))
    passages, problems = read(tmp_path / name)
    assert said(passages) == BOTH
    assert [problem.record for problem in problems] == ([f"{name} line {place + 1}"] if odd else [])


def test_impossible_question_needs_no_answers_be_it_the_first(tmp_path):
    asked = {"id": "3", "context": CONTEXT, "question": "Which sea?", "is_impossible": True}
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, [asked, ROW])))
    passages, problems = read(tmp_path / "f.jsonl")
    assert problems == []
    assert said(passages) == {"3": (CONTEXT, "Which sea?", []), "1": BOTH["1"]}


@pytest.mark.parametrize(
    ("columns", "keys"),
    [
        ({"id": "guid"}, {"id": "guid"}),
        (
            {"id": "guid", "question": "query", "answers": "spans"},
            {"id": "guid", "question": "query", "answers": "spans"},
        ),
        ({"context": "body"}, {"context": "body"}),
    ],
)
@pytest.mark.parametrize("form", ["nested", "array of paragraphs"])
def test_columns_name_the_keys_of_nested_files_too(tmp_path, form, columns, keys):
    def renamed(value):
        if isinstance(value, dict):
            return {keys.get(key, key): renamed(item) for key, item in value.items()}
        return [renamed(item) for item in value] if isinstance(value, list) else value

    (tmp_path / "f.json").write_text(json.dumps(renamed(VALUES[form][0])))
    passages, problems = read(tmp_path / "f.json", columns=Columns(**columns))
    assert problems == []
    assert said(passages) == {"1": BOTH["1"]}


def test_other_names_are_not_guessed(tmp_path):
    rows = [{"id": "1", "context": CONTEXT, "query": "Which river?", "answers": ANSWERS}]
    (tmp_path / "f.json").write_text(json.dumps(rows))
    _, (problem,) = read(tmp_path / "f.json")
    assert problem.message == (
        "cannot be read as JSON: there is no column 'question'; the columns there are: id, context, query, answers. "
        "Name the right one with data.columns.question=..."
    )


def test_files_of_several_kinds_are_read_together(tmp_path):
    rows = rows_of(flat(LISTED))
    (tmp_path / "a.json").write_text(json.dumps({"data": [ARTICLE]}))
    (tmp_path / "b.jsonl").write_text(json.dumps(OTHER))
    (tmp_path / "c.json").write_text(json.dumps(rows[:1]))
    (tmp_path / "d.tsv").write_text("id\tcontext\tquestion\tanswers\tanswer_start\n9\tBrno.\tWhere?\tBrno\t0\n")
    passages, problems = read(tmp_path)
    assert problems == []
    assert list(said(passages)) == ["1", "2", "007", "9"]


@pytest.mark.parametrize("form", VALUES)
def test_questions_alone_are_read_for_prediction(tmp_path, form):
    text = json.dumps(VALUES[form][0]).replace("answers", "unused")
    (tmp_path / "f.json").write_text(text)
    (file,) = find_files(DataConfig(), str(tmp_path))
    rows = list(read_rows(file, DataConfig(), answers=False))
    assert [(row.content["id"], row.content["context"]) for row in rows] == [
        (key, BOTH[key][0]) for key in sorted(BOTH)[: len(rows)]
    ]
    assert rows[-1].share == 1


def test_keys_that_cannot_be_stored_are_told(tmp_path):
    (tmp_path / "f.jsonl").write_text(json.dumps(ROW) + '\n{"\\ud800": 1}\n')
    data = DataConfig()
    _, problem = read_passages(find_files(data, str(tmp_path)), data)
    assert problem.message == r"expected a value; the keys there are: \ud800"


def test_what_is_nested_without_end_is_no_row(tmp_path):
    (tmp_path / "f.jsonl").write_text(json.dumps(ROW) + "\n" + '{"data": [' * 400 + "]}" * 400)
    passages, (problem,) = read(tmp_path / "f.jsonl")
    assert said(passages) == {"1": BOTH["1"]}
    assert problem.record == "f.jsonl line 2 data[0]"
