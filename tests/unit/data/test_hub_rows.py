"""Hub data goes the way of files; the Hub itself is stood in for, since tests use no network."""

import re

import datasets
import pytest

from qa_ray.config.fine_tuning import Columns, DataConfig
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
