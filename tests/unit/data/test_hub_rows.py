"""Hub data goes the way of files; the Hub itself is stood in for, since tests use no network."""

import re
from dataclasses import replace

import datasets
import pytest

from qa_ray.config.data import Columns, DataConfig
from qa_ray.config.policies import ImpossibleAnswers
from qa_ray.data.passages import read_split
from qa_ray.data.validation import is_fatal
from qa_ray.schema import Answer

DATA = DataConfig(hub="rajpurkar/squad", hub_config="plain", revision="v1")


@pytest.fixture
def hub(monkeypatch):
    """Return the calls of load_dataset, each answered with three questions about two contexts."""
    calls = []
    table = {
        "id": ["a", "b", "c"],
        "context": ["Ann met Bob.", "Ann met Bob.", "Eve"],
        "question": ["Who?", "Whom?", None],
        "answers": [{"text": ["Ann"], "answer_start": [0]}, {"text": [], "answer_start": []}, None],
    }

    def load_dataset(*arguments, **options):
        calls.append((arguments, options))
        return datasets.Dataset.from_dict(table)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return calls


def test_hub_split_becomes_passages(hub):
    passages, (problem,) = read_split(DATA, "train")
    assert hub == [(("rajpurkar/squad", "plain"), {"split": "train", "revision": "v1", "streaming": False})]
    assert [question.answers for question in passages[0].questions] == [(Answer("Ann", 0),), ()]
    assert [question.record for question in passages[0].questions] == [
        "rajpurkar/squad train row 0", "rajpurkar/squad train row 1"
    ]  # fmt: skip
    assert (problem.record, problem.field, problem.value) == ("rajpurkar/squad train row 2", "question", "None")


FLAGS = {
    "flags": datasets.Value("bool"),
    "numbers": datasets.Value("int8"),
    "floats": datasets.Value("float32"),
    "words": datasets.Value("string"),
    "labels": datasets.ClassLabel(names=["answered", "impossible"]),
}


@pytest.mark.parametrize("kind", FLAGS)
def test_answers_of_an_impossible_question_are_an_error_or_are_ignored(monkeypatch, kind):
    flags = ["False", "True", None] if kind == "words" else [False, True, None]
    answers = {"text": ["Ann"], "answer_start": [0]}
    table = {
        "id": ["a", "b", "c"],
        "context": ["Ann met Bob."] * 3,
        "question": ["Who?"] * 3,
        "answers": [answers] * 3,
        "plausible_answers": [answers] * 3,
        "is_impossible": flags,
    }
    dataset = datasets.Dataset.from_dict(table).cast_column("is_impossible", FLAGS[kind])
    monkeypatch.setattr("datasets.load_dataset", lambda *_arguments, **_options: dataset)
    (passage,), (problem,) = read_split(DATA, "train")
    assert (problem.record, problem.field) == ("rajpurkar/squad train row 1", "answers")
    assert problem.message.endswith("if they are only plausible ones, set data.impossible_answers=ignore")
    assert [question.id for question in passage.questions] == ["a", "c"]
    (passage,), problems = read_split(replace(DATA, impossible_answers=ImpossibleAnswers.IGNORE), "train")
    assert problems == []
    assert [len(question.answers) for question in passage.questions] == [1, 0, 1]


def test_brackets_are_an_answer_where_a_start_is_given_for_them(monkeypatch):
    table = {
        "context": ["list() returns []"] * 2,
        "question": ["What does it return?", "What else?"],
        "answers": ["[]", "[]"],
        "answer_start": [15, None],
    }
    monkeypatch.setattr("datasets.load_dataset", lambda *_arguments, **_options: datasets.Dataset.from_dict(table))
    (passage,), problems = read_split(DATA, "train")
    assert problems == []
    assert [question.answers for question in passage.questions] == [(Answer("[]", 15),), ()]


def test_max_examples_cuts_a_hub_split(hub):
    (passage,), problems = read_split(DATA, "train", 1)
    assert (len(passage.questions), problems) == (1, [])


def test_missing_hub_column_is_named(hub):
    data = DataConfig(hub="rajpurkar/squad", columns=Columns(question="query"))
    _, (problem,) = read_split(data, "train")
    assert is_fatal(problem)
    assert re.search(r"rajpurkar/squad train: .*there is no column 'query'; .*data.columns.question", str(problem))


@pytest.mark.parametrize("error", [ConnectionError, ValueError, FileNotFoundError])
def test_hub_that_fails_says_what_to_do(monkeypatch, error):
    def fail(*_arguments, **_options):
        raise error("the cause")

    monkeypatch.setattr("datasets.load_dataset", fail)
    _, (problem,) = read_split(DATA, "train")
    assert is_fatal(problem)
    assert re.search(r"rajpurkar/squad, split 'train': .*the cause.*data\.train=FILE", str(problem))
