"""Nested SQuAD JSON: what is read, what is told of what cannot be read, and the way back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_ray.data.squad import parse, to_squad
from qa_ray.data.validation import check
from qa_ray.schema import Answer, Passage, Problem, Question

REAL_DATA = Path(__file__).parents[3] / "../shared/data/squad"

answers = st.builds(Answer, text=st.text(), answer_start=st.integers(-(2**31), 2**31 - 1))
questions = st.builds(
    Question, id=st.text(), text=st.text(), answers=st.lists(answers, max_size=3).map(tuple), record=st.just("")
)
passages = st.builds(Passage, context=st.text(), questions=st.lists(questions, max_size=3).map(tuple))


def document(**changes):
    qa = {"id": "q1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}], **changes}
    qa = {key: value for key, value in qa.items() if value != "DROP"}
    return {"version": "v1.1", "data": [{"title": "t", "paragraphs": [{"context": "Ann ran.", "qas": [qa]}]}]}


def read(value):
    return list(parse(json.dumps(value), "train.json"))


def without_records(passage):
    return replace(passage, questions=tuple(replace(question, record="") for question in passage.questions))


@settings(deadline=None)
@given(st.lists(passages, max_size=3), st.booleans())
def test_passages_survive_the_way_to_json_and_back(originals, ascii_only):
    text = json.dumps(to_squad(originals, "title"), ensure_ascii=ascii_only)
    for source in (text, text.encode(), b"\xef\xbb\xbf" + text.encode(), "\ufeff" + text):
        assert [without_records(passage) for passage in parse(source, "f")] == originals


def test_a_question_knows_its_record():
    paragraph = document()["data"][0]["paragraphs"][0]
    nested = {"data": [{"paragraphs": []}, {"paragraphs": [{"context": "", "qas": []}, paragraph]}]}
    assert read(nested)[1].questions[0].record == "train.json data[1].paragraphs[1].qas[0]"


def test_version_1_needs_no_is_impossible():
    assert read(document())[0].questions[0].answers == (Answer("Ann", 0),)


@pytest.mark.parametrize("given_answers", [[], "DROP"], ids=["empty", "absent"])
def test_impossible_question_has_no_answers_whatever_is_plausible(given_answers):
    plausible = [{"text": "Ann", "answer_start": 0}]
    (passage,) = read(document(is_impossible=True, answers=given_answers, plausible_answers=plausible))
    assert passage.questions[0].answers == ()


def test_numeric_id_becomes_text():
    assert read(document(id=7))[0].questions[0].id == "7"


@pytest.mark.parametrize(
    ("changes", "field", "value", "message"),
    [
        ({"question": "DROP"}, "question", "(missing)", "expected text; the keys there are: id, answers"),
        ({"question": ["x"]}, "question", "['x']", "expected text"),
        ({"question": "\ud800"}, "question", "'\\ud800'", "surrogate"),
        ({"id": None}, "id", "None", "expected text or a whole number"),
        ({"id": True}, "id", "True", "expected text or a whole number"),
        ({"answers": "DROP"}, "answers", "(missing)", "expected a list"),
        ({"answers": {"text": ["x" * 99]}}, "answers", "{'text': ['xxx", "expected a list"),
        ({"answers": ["Ann"]}, "answers[0].text", "'Ann'", "expected an object with the key 'text'"),
        ({"answers": [{"text": "Ann"}]}, "answers[0].answer_start", "(missing)", "the keys there are: text"),
        ({"answers": [{"text": "Ann", "answer_start": "0"}]}, "answers[0].answer_start", "'0'", "expected a whole"),
        ({"answers": [{"text": "Ann", "answer_start": True}]}, "answers[0].answer_start", "True", "expected a whole"),
        ({"answers": [{"text": "A", "answer_start": 2**31}]}, "answers[0].answer_start", "2147483648", "a whole"),
        ({"is_impossible": "no"}, "is_impossible", "'no'", "expected true or false"),
        ({"is_impossible": True}, "answers", "[{'text': 'Ann'", "expected no answers where is_impossible is true"),
        ({"is_impossible": False, "answers": []}, "answers", "[]", "expected an answer where is_impossible is false"),
    ],
)
def test_problem_names_record_field_value_and_what_was_expected(changes, field, value, message):
    problem, passage = read(document(**changes))
    assert (problem.record, problem.field) == ("train.json data[0].paragraphs[0].qas[0]", field)
    assert problem.value.startswith(value)
    assert len(problem.value) <= 80
    assert message in problem.message
    assert passage == Passage("Ann ran.", ())


@pytest.mark.parametrize(
    ("data", "record", "field"),
    [
        ([{"title": "t"}], "train.json data[0]", "paragraphs"),
        (["x"], "train.json data[0]", "paragraphs"),
        ([{"paragraphs": [{"qas": []}]}], "train.json data[0].paragraphs[0]", "context"),
        ([{"paragraphs": [{"context": 1, "qas": []}]}], "train.json data[0].paragraphs[0]", "context"),
        ([{"paragraphs": [{"context": "", "qas": {}}]}], "train.json data[0].paragraphs[0]", "qas"),
    ],
)
def test_problem_above_the_questions_names_its_place(data, record, field):
    (problem,) = read({"data": data})
    assert (problem.record, problem.field) == (record, field)


@pytest.mark.parametrize(
    ("source", "record", "message"),
    [
        ('{"data":\n [1,}', "train.json line 2 column 5", "is not JSON"),
        ('{"a": 1}\n{"a": 2}', "train.json line 2 column 1", "set data.format=jsonl"),
        ("", "train.json line 1 column 1", "is not JSON"),
        (b'{"data":\n "\xff"}', "train.json line 2", "is not UTF-8"),
        ("[" * 100_000, "train.json", "is not JSON"),
        ("[]", "train.json", "is not nested SQuAD JSON: data expected an object"),
        ('{"data": 1}', "train.json", "is not nested SQuAD JSON: data expected a list"),
    ],
    ids=["malformed", "json-lines", "empty", "not-utf8", "too-deep", "a-list", "data-is-no-list"],
)
def test_file_that_is_no_squad_json_yields_one_problem_of_the_field_file(source, record, message):
    (problem,) = parse(source, "train.json")
    assert isinstance(problem, Problem)
    assert (problem.record, problem.field) == (record, "file")
    assert message in problem.message


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the SQuAD excerpt is not here")
@pytest.mark.parametrize(
    ("name", "num_questions"),
    [
        ("train-v1.1.json", 6887),
        ("validation-v1.1.json", 1782),
        ("train-v2.0.json", 6940),
        ("validation-v2.0.json", 2470),
    ],
)
def test_squad_is_sound(name, num_questions):
    passages = list(parse((REAL_DATA / name).read_bytes(), name))
    assert all(isinstance(passage, Passage) for passage in passages)
    assert sum(len(passage.questions) for passage in passages) == num_questions
    assert [problem for passage in passages for problem in check(passage)[1]] == []
