"""Questions with their contexts, in every form that a caller may give them, to passages."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qa_ray.data.validation import check, expect_text, shown
from qa_ray.errors import DataError
from qa_ray.schema import Passage, Question

_Item = Mapping[str, object]

_ONE, _SEVERAL = "context", "contexts"
_FORMS = (
    "give question=... and context=..., texts or lists of texts, or a dict with both, or a list of such dicts; "
    "contexts=[...] asks one question of several texts"
)


class Inputs(NamedTuple):
    """What is asked in one call."""

    passages: list[Passage]
    """With one question each: of every input its context, or its contexts in their order."""
    num_contexts: list[int | None]
    """Of every input; None where it is asked of a text, not of a list of texts."""
    several: bool
    """Whether several inputs may have been given, so that the results are a list."""


def read_inputs(*given: object, question: object = None, context: object = None, contexts: object = None) -> Inputs:
    """Return a passage with one question for each input and each of its contexts, in order.

    Two texts or a dict of two texts are one input; lists of any length are several, and so are dicts one after another.
    A list beside a single text repeats the text. `contexts` are the texts of one question that are answered together:
    beside a list of questions a list for each, or one list of texts for all. Questions are numbered from 0 by their
    ids.

    Raises:
        DataError: an input has no question or no context, or it is empty or no text; or lists differ in length.
    """
    items, several = _items(given, question, context, contexts)
    inputs = Inputs([], [], several)
    for number, item in enumerate(items):
        record = f"inputs[{number}]" if several else "input"
        asked = expect_text(record, "question", item["question"])
        if _SEVERAL in item:
            texts = _texts(record, item[_SEVERAL])
            inputs.num_contexts.append(len(texts))
            records = [f"{record} {_SEVERAL}[{place}]" for place in range(len(texts))]
        else:
            inputs.num_contexts.append(None)
            texts, records = [item[_ONE]], [record]
        for place, text in zip(records, texts, strict=True):
            inputs.passages.append(_passage(len(inputs.passages), place, asked, text))
    return inputs


def make_samples(question: object, context: object) -> dict[str, object] | list[dict[str, object]]:
    """Return an input as a dict, or inputs as a list of dicts, where a question or a context is a list."""
    items, several = _beside(question, context)
    return items if several else items[0]


def _passage(number: int, record: str, asked: str, text: object) -> Passage:
    passage = Passage(expect_text(record, _ONE, text), (Question(str(number), asked, (), record),))
    _, problems = check(passage)
    if problems:
        raise DataError(str(problems[0]))
    return passage


def _items(
    given: tuple[object, ...], question: object, context: object, contexts: object
) -> tuple[Iterable[_Item], bool]:
    """The inputs as dicts of a question, and its context or its contexts."""
    named = (question, context)
    if len(given) > 1 and all(isinstance(item, Mapping) for item in given):
        given = (list(given), None)
    twice = len(given) > 2 or any(value is not None for value in named[: len(given)])
    question, context = (*given, *named[len(given) :])[:2]
    if twice or (context is not None and contexts is not None):
        raise DataError(f"the inputs are given twice, or are too many: {_FORMS}")
    if context is not None:
        return _beside(question, context)
    if contexts is not None:
        return _pooled(question, contexts)
    if isinstance(question, Mapping):
        item = _checked("input", question)
        if _SEVERAL in item:
            return _pooled(item["question"], item[_SEVERAL])
        return _beside(item["question"], item[_ONE])
    items, several = _as_list(question)
    if not several:
        raise DataError(f"input {shown(question)} has no context: {_FORMS}")
    return [_checked(f"inputs[{number}]", item) for number, item in enumerate(items)], True


def _beside(question: object, context: object) -> tuple[list[dict[str, object]], bool]:
    questions, several_questions = _as_list(question)
    contexts, several_contexts = _as_list(context)
    if several_questions and several_contexts:
        _require_as_many(questions, contexts)
    if not several_questions:
        questions *= len(contexts)
    if not several_contexts:
        contexts *= len(questions)
    items: list[dict[str, object]] = [
        {"question": asked, _ONE: text} for asked, text in zip(questions, contexts, strict=True)
    ]
    return items, several_questions or several_contexts


def _pooled(question: object, contexts: object) -> tuple[list[_Item], bool]:
    questions, several = _as_list(question)
    if not several:
        return [{"question": question, _SEVERAL: contexts}], False
    lists, listed = _as_list(contexts)
    if not listed:
        lists = [contexts] * len(questions)
    elif any(_as_list(texts)[1] for texts in lists):
        _require_as_many(questions, lists)
    else:
        lists = [lists] * len(questions)
    return [{"question": asked, _SEVERAL: texts} for asked, texts in zip(questions, lists, strict=True)], True


def _texts(record: str, contexts: object) -> list[object]:
    texts, several = _as_list(contexts)
    if not several or not texts:
        raise DataError(f"{record}: {_SEVERAL}={shown(contexts)}: expected a list of at least one text")
    return texts


def _require_as_many(questions: list[object], contexts: list[object]) -> None:
    if len(questions) != len(contexts):
        raise DataError(f"there are {len(questions)} questions and {len(contexts)} contexts: give as many of both")


def _checked(record: str, item: object) -> _Item:
    if not isinstance(item, Mapping) or "question" not in item or (_ONE in item) == (_SEVERAL in item):
        raise DataError(f"{record}: {shown(item)} is no dict with question and context: {_FORMS}")
    return item


def _as_list(value: object) -> tuple[list[object], bool]:
    """A value's items, or the value itself as the only one; and whether it is several."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return list(value), True
    return [value], False
