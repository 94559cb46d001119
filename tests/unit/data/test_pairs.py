import re

import pytest

from qa_ray.data.pairs import make_samples, read_inputs
from qa_ray.errors import DataError, UserError

ONE = {"question": "q0", "context": "c0"}
TWO = [ONE, {"question": "q1", "context": "c1", "id": "left alone"}]


def texts(*arguments, **keywords):
    passages, num_contexts, several = read_inputs(*arguments, **keywords)
    assert num_contexts == [None] * len(passages)
    assert [passage.questions[0].id for passage in passages] == [str(number) for number in range(len(passages))]
    return [(passage.questions[0].text, passage.context) for passage in passages], several


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
        ((ONE, TWO[1]), [("q0", "c0"), ("q1", "c1")]),
        (([],), []),
        (([], []), []),
        (([], "c0"), []),
    ],
    ids=[
        "lists", "a tuple and an iterator", "one question, many contexts", "many questions, one context",
        "a list of one beside a text", "dicts", "a list of one dict", "a generator of dicts", "a dict of lists",
        "dicts one after another",
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
        read_inputs(question, context)
    assert isinstance(error.value, UserError)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("given", "named", "expected", "several"),
    [
        (("q",), {"contexts": ["a", "b"]}, [("q", ["a", "b"])], False),
        ((), {"question": "q", "contexts": iter(["a"])}, [("q", ["a"])], False),
        (({"question": "q", "contexts": ["a", "b"]},), {}, [("q", ["a", "b"])], False),
        ((["q", "r"],), {"contexts": ["a", "b"]}, [("q", ["a", "b"]), ("r", ["a", "b"])], True),
        ((["q", "r"],), {"contexts": [["a", "b"], ["c"]]}, [("q", ["a", "b"]), ("r", ["c"])], True),
        (([{"question": "q", "contexts": ["a", "b"]}, ONE],), {}, [("q", ["a", "b"]), ("q0", "c0")], True),
        (([],), {"contexts": []}, [], True),
    ],
    ids=["one", "an iterator", "a dict", "the same for all", "a list for each", "a list of dicts", "no questions"],
)
def test_several_contexts_of_a_question(given, named, expected, several):
    passages, num_contexts, many = read_inputs(*given, **named)
    assert many is several
    assert [passage.questions[0].id for passage in passages] == [str(number) for number in range(len(passages))]
    found, left = [], iter(passages)
    for number in num_contexts:
        group = [next(left) for _ in range(number or 1)]
        [question] = {passage.questions[0].text for passage in group}
        texts = [passage.context for passage in group]
        found.append((question, texts[0] if number is None else texts))
    assert found == expected


@pytest.mark.parametrize(
    ("given", "named", "message"),
    [
        (("q",), {"contexts": []}, "input: contexts=[]: expected a list of at least one text"),
        (("q",), {"contexts": "a"}, "input: contexts='a': expected a list of at least one text"),
        ((["q"],), {"contexts": "a"}, "inputs[0]: contexts='a': expected a list"),
        (("q",), {"contexts": ["a", " "]}, "input contexts[1]: context=' ': is empty"),
        (("q",), {"contexts": ["a", ["b"]]}, "input contexts[1]: context=['b']: expected text"),
        ((["q", "r"],), {"contexts": [["a"], []]}, "inputs[1]: contexts=[]: expected a list"),
        ((["q", "r"],), {"contexts": [["a"]]}, "there are 2 questions and 1 contexts"),
        (("q", "a"), {"contexts": ["b"]}, "the inputs are given twice, or are too many: give question=..."),
        ((), {"question": "q", "context": "a", "contexts": ["b"]}, "the inputs are given twice"),
        (({"question": "q", "context": "a", "contexts": ["b"]},), {}, "is no dict with question and context"),
        (("q", "c", "c"), {}, "the inputs are given twice, or are too many"),
        (("q",), {"question": "q", "context": "c"}, "the inputs are given twice"),
        ((ONE, ONE), {"context": "c"}, "the inputs are given twice"),
    ],
)
def test_contexts_that_cannot_be_used_are_named(given, named, message):
    with pytest.raises(DataError, match=re.escape(message)):
        read_inputs(*given, **named)


def test_samples_are_inputs():
    assert make_samples("q0", "c0") == ONE
    assert make_samples(["q0", "q1"], "c") == [
        {"question": "q0", "context": "c"},
        {"question": "q1", "context": "c"},
    ]
    with pytest.raises(DataError, match="there are 2 questions and 1 contexts"):
        make_samples(["q0", "q1"], ["c"])
