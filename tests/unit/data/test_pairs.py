import re

import pytest

from qa_ray.data.pairs import pairs_to_passages
from qa_ray.errors import DataError, UserError

ONE = {"question": "q0", "context": "c0"}
TWO = [ONE, {"question": "q1", "context": "c1", "id": "left alone"}]


def texts(*arguments, **keywords):
    passages, many = pairs_to_passages(*arguments, **keywords)
    assert [passage.questions[0].id for passage in passages] == [str(number) for number in range(len(passages))]
    return [(passage.questions[0].text, passage.context) for passage in passages], many


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("q0", "c0"), [("q0", "c0")]),
        ((ONE,), [("q0", "c0")]),
    ],
    ids=["texts", "dict"],
)
def test_one_input(arguments, expected):
    assert texts(*arguments) == (expected, False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((["q0", "q1"], ["c0", "c1"]), [("q0", "c0"), ("q1", "c1")]),
        ((("q0", "q1"), iter(["c0", "c1"])), [("q0", "c0"), ("q1", "c1")]),
        (("q0", ["c0", "c1"]), [("q0", "c0"), ("q0", "c1")]),
        ((["q0", "q1"], "c0"), [("q0", "c0"), ("q1", "c0")]),
        ((["q0"], "c0"), [("q0", "c0")]),
        ((TWO,), [("q0", "c0"), ("q1", "c1")]),
        (([ONE],), [("q0", "c0")]),
        ((iter(TWO),), [("q0", "c0"), ("q1", "c1")]),
        (({"question": ["q0", "q1"], "context": "c0"},), [("q0", "c0"), ("q1", "c0")]),
        (([],), []),
        (([], []), []),
        (([], "c0"), []),
    ],
    ids=[
        "lists", "a tuple and an iterator", "one question, many contexts", "many questions, one context",
        "a list of one beside a text", "dicts", "a list of one dict", "a generator of dicts", "a dict of lists",
        "nothing", "no questions and no contexts", "no questions",
    ],
)  # fmt: skip
def test_several_inputs(arguments, expected):
    assert texts(*arguments) == (expected, True)


@pytest.mark.parametrize(
    ("question", "context", "message"),
    [
        ("q", " \n", r"input: context=' \n': is empty"),
        ("", "c", "input: question='': is empty"),
        (["q", "q", " "], "c", "inputs[2]: question=' ': is empty"),
        ("q", ["c", ""], "inputs[1]: context='': is empty"),
        ([ONE, {"question": "q", "context": ""}], None, "inputs[1]: context='': is empty"),
        ("q", 7, "input: context=7: expected text"),
        (["q", None], "c", "inputs[1]: question=None: expected text"),
        (None, "c", "input: question=None: expected text"),
        ("q", "\ud800", r"input: context='\ud800': expected Unicode text"),
        (["q", "q"], ["c"], "there are 2 questions and 1 contexts"),
        ([ONE, {"question": "q"}], None, "inputs[1]: {'question': 'q'} is no dict with question and context"),
        (["q"], None, "inputs[0]: 'q' is no dict with question and context: give question=... and context=..."),
        ({"question": "q"}, None, "input: {'question': 'q'} is no dict with question and context"),
        ("q", None, "input 'q' has no context: give question=... and context=..."),
        (None, None, "input None has no context"),
    ],
)
def test_input_that_cannot_be_used_is_named(question, context, message):
    with pytest.raises(DataError, match=re.escape(message)) as error:
        pairs_to_passages(question, context)
    assert isinstance(error.value, UserError)
