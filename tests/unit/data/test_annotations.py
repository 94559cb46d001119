"""Answers as annotation tools and MRQA give them: with a category, or with the places of characters."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flat_rows import read

from qa_ray.config.data import DataConfig
from qa_ray.data.files import find_files
from qa_ray.data.rows import read_rows
from qa_ray.data.validation import check

CONTEXT = "The Vltava flows through Prague. The vltava is long."


def answers_of(passages):
    assert all(check(passage) == (passage, []) for passage in passages)
    return {
        question.id: [(one.text, one.answer_start) for one in question.answers]
        for passage in passages
        for question in passage.questions
    }


def exported(*questions, ending=".json"):
    qas = [{"id": number, "question": "Which?", **question} for number, question in enumerate(questions, start=1)]
    paragraph = {"qas": qas, "context": CONTEXT, "document_id": 3}
    return json.dumps({"data": [{"paragraphs": [paragraph]}]} if ending == ".json" else paragraph)


def given(text, start, category=None):
    return {"answer_id": 5, "text": text, "answer_start": start, "answer_category": category}


@pytest.mark.parametrize("category", ["NOT_GIVEN", "NO_ANSWER", "no_answer"])
@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_category_says_that_there_is_no_answer(tmp_path, ending, category):
    text = exported(
        {"answers": [given("Vltava", 4)], "is_impossible": False},
        {"answers": [given("", 0, category)], "is_impossible": True},
        {"answers": [given("", 0, category)], "is_impossible": False},
        {"answers": [given("", 0, category), given("Prague", "25")]},
        {"answers": [given("", None, category)]},
        ending=ending,
    )
    (tmp_path / f"f{ending}").write_text(text)
    passages, problems = read(tmp_path)
    assert problems == []
    assert answers_of(passages) == {"1": [("Vltava", 4)], "2": [], "3": [], "4": [("Prague", 25)], "5": []}


def test_export_may_say_answerable_where_nobody_answered(tmp_path):
    text = exported({"answers": [given("Vltava", 4)], "is_impossible": False}, {"answers": [], "is_impossible": False})
    (tmp_path / "f.json").write_text(text)
    passages, problems = read(tmp_path)
    assert problems == []
    assert answers_of(passages) == {"1": [("Vltava", 4)], "2": []}


def test_category_that_contradicts_its_text_is_told(tmp_path):
    (tmp_path / "f.json").write_text(exported({"answers": [given("Vltava", 4, "NOT_GIVEN")]}, {"answers": []}))
    passages, (problem,) = read(tmp_path)
    assert answers_of(passages) == {"2": []}
    assert str(problem) == (
        "f.json data[0].paragraphs[0].qas[0]: answers[0].answer_category='NOT_GIVEN': contradicts its text 'Vltava': "
        "drop the text, or mend the category"
    )


@pytest.mark.parametrize("answers", [[{"text": "", "answer_start": 0}], {"text": [""], "answer_start": [0]}], ids=str)
def test_empty_text_is_no_answer_where_the_question_is_impossible(tmp_path, answers):
    rows = [{"id": "1", "question": "Which?", "context": CONTEXT, "answers": answers, "is_impossible": True}]
    (tmp_path / "f.json").write_text(json.dumps(rows))
    passages, problems = read(tmp_path)
    assert problems == []
    assert answers_of(passages) == {"1": []}


HEADER = {"header": {"dataset": "NewsQA", "split": "train"}}


def mrqa(*questions):
    qas = [{"qid": f"q{number}", "question": "Which?", "question_tokens": [["Which", 0]], **question}
           for number, question in enumerate(questions)]  # fmt: skip
    return {"id": "", "context": CONTEXT, "context_tokens": [["The", 0]], "qas": qas}


def write_mrqa(folder, *questions):
    lines = [json.dumps(line) for line in (HEADER, mrqa(*questions))]
    (folder / "NewsQA.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def test_mrqa_says_where_answers_stand_by_first_and_last_character(tmp_path):
    write_mrqa(
        tmp_path,
        {"answers": ["Vltava"], "detected_answers": [
            {"text": "Vltava", "char_spans": [[4, 9], [37, 42]], "token_spans": [[1, 1]]},
            {"text": "vltava", "char_spans": [[37, 42]]},
        ]},
        {"answers": ["prague"], "detected_answers": [{"text": "prague", "char_spans": [["25", "30"]]}]},
        {"answers": [], "detected_answers": []},
    )  # fmt: skip
    passages, problems = read(tmp_path)
    assert problems == []
    assert answers_of(passages) == {"q0": [("Vltava", 4), ("vltava", 37)], "q1": [("Prague", 25)], "q2": []}
    assert passages[0].questions[1].record == "NewsQA.jsonl.gz line 2 qas[1]"


def test_mrqa_as_the_hub_has_it_has_a_list_for_each_field(tmp_path):
    row = {
        "qid": "1",
        "question": "Which?",
        "context": CONTEXT,
        "answers": ["Vltava"],
        "detected_answers": {
            "text": ["Vltava", "prague"],
            "char_spans": [{"start": [4, 37], "end": [9, 42]}, {"start": [25], "end": [30]}],
        },
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "mrqa.parquet")
    passages, problems = read(tmp_path)
    assert problems == []
    assert answers_of(passages) == {"mrqa.parquet row 0": [("Vltava", 4), ("vltava", 37), ("Prague", 25)]}


def test_mrqa_is_read_for_prediction(tmp_path):
    write_mrqa(tmp_path, {})
    (file,) = find_files(DataConfig(), str(tmp_path))
    (row,) = read_rows(file, DataConfig(), answers=False)
    assert (row.content["id"], row.content["question"], row.content["context"]) == ("q0", "Which?", CONTEXT)


@pytest.mark.parametrize(
    ("detected", "words"),
    [
        (["Vltava"], "detected_answers[0]='Vltava': expected an object with the list 'char_spans'"),
        ([{"text": "a"}], "detected_answers[0]={'text': 'a'}: expected an object"),
        ([{"char_spans": [[4]]}], "char_spans[0]=[4]: expected the places of two characters"),
        ([{"char_spans": [["a", "b"]]}], "char_spans[0]=['a', 'b']: expected the places of two characters"),
        ([{"char_spans": [[4, 52]]}], "char_spans[0]=[4, 52]: is not in the context, which has 52 characters"),
        ([{"char_spans": [[9, 4]]}], "char_spans[0]=[9, 4]: is not in the context"),
        ([{"char_spans": [[-1, 4]]}], "char_spans[0]=[-1, 4]: is not in the context"),
        ([], "answers=['x']: is plain text"),
    ],
)
def test_odd_places_are_told_and_spoil_no_other(tmp_path, detected, words):
    good = {"answers": ["Vltava"], "detected_answers": [{"text": "Vltava", "char_spans": [[4, 9]]}]}
    write_mrqa(tmp_path, {"answers": ["x"], "detected_answers": detected}, good)
    passages, (problem,) = read(tmp_path)
    assert answers_of(passages) == {"q1": [("Vltava", 4)]}
    assert words in str(problem)
