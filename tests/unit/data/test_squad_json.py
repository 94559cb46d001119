"""Nested SQuAD JSON: what is read, what is told of what cannot be read, and the way back."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from passages import SAMPLE, SQUAD, read_file

from qa_ray.benchmark.workload import to_squad
from qa_ray.config.data import Columns, DataConfig
from qa_ray.config.policies import ImpossibleAnswers
from qa_ray.data.files import find_files
from qa_ray.data.passages import read_passages
from qa_ray.data.validation import check
from qa_ray.schema import Answer, Passage, Problem, Question

answers = st.builds(Answer, text=st.text(), answer_start=st.integers(-(2**31), 2**31 - 1))
answers = answers.filter(lambda answer: answer.text.strip())  # without text it is none
questions = st.builds(Question, st.text(), st.text(), st.lists(answers, max_size=3).map(tuple), st.just(""))
passages = st.builds(Passage, context=st.text(), questions=st.lists(questions, max_size=3).map(tuple))


def document(**changes):
    qa = {"id": "q1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}], **changes}
    qa = {key: value for key, value in qa.items() if value != "DROP"}
    return {"version": "v1.1", "data": [{"title": "t", "paragraphs": [{"context": "Ann ran.", "qas": [qa]}]}]}


@pytest.fixture
def read(tmp_path):
    def read(value, **options):
        path = tmp_path / "train.json"
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        data = DataConfig(**options)
        return list(read_passages(find_files(data, str(path)), data))

    return read


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(originals=st.lists(passages, max_size=3), ascii_only=st.booleans(), mark=st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_questions_survive_the_way_to_json_and_back(read, originals, ascii_only, mark):
    text = json.dumps(to_squad(originals, "title"), ensure_ascii=ascii_only)
    found = [
        (item.context, question.id, question.text, question.answers)
        for item in read(mark + text.encode())
        for question in item.questions
    ]
    assert found == [
        (passage.context, question.id, question.text, question.answers)
        for passage in originals
        for question in passage.questions
    ]


def test_a_question_knows_its_record(read):
    paragraph = document()["data"][0]["paragraphs"][0]
    nested = {"data": [{"paragraphs": []}, {"paragraphs": [{"context": "", "qas": []}, paragraph]}]}
    (passage,) = read(nested)
    assert passage.questions[0].record == "train.json data[1].paragraphs[1].qas[0]"


def test_keys_are_those_of_squad_whatever_the_columns_of_other_files(read):
    assert read(document(), columns=Columns(id="key", context="body", question="asked", answers="spans")) == [
        Passage("Ann ran.", (Question("q1", "Who?", (Answer("Ann", 0),), "train.json data[0].paragraphs[0].qas[0]"),))
    ]


@pytest.mark.parametrize("given_answers", [[], "DROP"], ids=["empty", "absent"])
def test_impossible_question_has_no_answers_whatever_is_plausible(read, given_answers):
    plausible = [{"text": "Ann", "answer_start": 0}]
    (passage,) = read(document(is_impossible=True, answers=given_answers, plausible_answers=plausible))
    assert passage.questions[0].answers == ()


def test_answers_of_an_impossible_question_are_ignored_if_asked(read):
    (passage,) = read(document(is_impossible=True), impossible_answers=ImpossibleAnswers.IGNORE)
    assert passage.questions[0].answers == ()


def test_numeric_id_becomes_text(read):
    assert read(document(id=7))[0].questions[0].id == "7"


@pytest.mark.parametrize(
    ("changes", "field", "value", "message"),
    [
        ({"question": "DROP"}, "question", "(missing)", "expected a value; the keys there are: id, answers"),
        ({"question": ["x"]}, "question", "['x']", "expected text"),
        ({"question": "\ud800"}, "question", "'\\ud800'", "surrogate"),
        ({"id": None}, "id", "None", "expected text or a whole number"),
        ({"id": True}, "id", "True", "expected text or a whole number"),
        ({"answers": "DROP"}, "answers", "(missing)", "expected a value"),
        ({"answers": {"text": ["x" * 99]}}, "answers.answer_start", "(missing)", "the keys there are: text"),
        ({"answers": ["Ann" * 99]}, "answers", "['AnnAnn", "is plain text"),
        ({"answers": [{"text": "Ann"}]}, "answers[0].answer_start", "(missing)", "the keys there are: text"),
        ({"answers": [{"text": "Ann", "answer_start": True}]}, "answers[0].answer_start", "True", "expected a whole"),
        ({"answers": [{"text": "A", "answer_start": 2**31}]}, "answers[0].answer_start", "2147483648", "a whole"),
        ({"is_impossible": "no"}, "is_impossible", "'no'", "expected true or false"),
        ({"is_impossible": True}, "answers", "[{'text': 'Ann'", "expected no answers where is_impossible is true"),
        ({"is_impossible": False, "answers": []}, "answers", "[]", "expected an answer where is_impossible is false"),
    ],
)
def test_problem_names_record_field_value_and_what_was_expected(read, changes, field, value, message):
    odd, good = document(**changes), document(id="good")
    problem, passage = read({"data": odd["data"] + good["data"]})
    assert [question.id for question in passage.questions] == ["good"]
    assert (problem.record, problem.field) == ("train.json data[0].paragraphs[0].qas[0]", field)
    assert problem.value.startswith(value)
    assert len(problem.value) <= 80
    assert message in problem.message


@pytest.mark.parametrize(
    ("data", "record", "field"),
    [
        ([{"title": "t"}], "train.json data[0]", "paragraphs"),
        (["x"], "train.json data[0]", "paragraphs"),
        ([{"paragraphs": [{"qas": [{"question": ""}]}]}], "train.json data[0].paragraphs[0].qas[0]", "context"),
        ([{"paragraphs": [{"context": "", "qas": ["x"]}]}], "train.json data[0].paragraphs[0].qas[0]", "question"),
        ([{"paragraphs": [{"context": "", "qas": {}}]}], "train.json data[0].paragraphs[0]", "qas"),
    ],
)
def test_problem_of_the_nesting_names_its_place(read, data, record, field):
    problem, passage = read({"data": data + document(id="good")["data"]})
    assert [question.id for question in passage.questions] == ["good"]
    assert (problem.record, problem.field) == (record, field)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b'{"data":\n [1,}', "line 2 column 5 is not JSON"),
        (b'{"a":\n1}\n{"a": 2}', "line 3 column 1 is not JSON: Extra data: '{\"a\": 2}'; if each line is an object"),
        (b'{"a":\n1}\n{"a": 2}', "set data.format=jsonl"),
        (b"", "line 1 column 1 is not JSON"),
        (b'{"data":\n "\xff"}', "line 2 is not UTF-8"),
        (b"[" * 100_000, "is not JSON that can be read"),
        (b"[" + b"1" * 5000 + b"]", "is not JSON that can be read"),
        (b"7", "holds no questions: expected a list of rows or an object with the list 'data', found 7"),
        (b'{"data":\n1}', "holds no questions"),
        (b'{"train":\n[1]}', "expected the list 'data', found the keys train"),
        (
            b'[{"title": "t"}]',
            "no column 'context'; the columns there are: title. Name the right one with data.columns.c",
        ),
    ],
    ids=[
        "malformed",
        "json-lines",
        "hint",
        "empty",
        "not-utf8",
        "too-deep",
        "too-long",
        "a-number",
        "data-is-no-list",
        "other-keys",
        "other-columns",
    ],
)
def test_file_that_is_no_squad_json_yields_one_problem_of_the_field_file(read, source, message):
    (problem,) = read(source)
    assert isinstance(problem, Problem)
    assert (problem.record, problem.field) == ("train.json", "file")
    assert message in problem.message


@pytest.mark.parametrize(
    ("file", "num_questions"),
    [(f"{SAMPLE}/train.json", 1300), (f"{SQUAD}/train-v1.1.json", 6887), (f"{SQUAD}/train-v2.0.json", 6940)],
    ids=["sample", "1.1", "2.0"],
)
def test_published_data_are_sound(file, num_questions):
    found = read_file(file)
    assert sum(len(passage.questions) for passage in found) == num_questions
    assert [problem for passage in found for problem in check(passage)[1]] == []
