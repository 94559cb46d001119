"""Questions with their contexts, in every form that a caller may give them, to passages."""

from collections.abc import Iterable, Mapping

from qa_ray.data.validation import check, expect_text, shown
from qa_ray.errors import DataError
from qa_ray.schema import Passage, Question

Pair = tuple[object, object]

_NAMES = ("question", "context")
_FORMS = "give question=... and context=..., texts or lists of texts, or a dict with both, or a list of such dicts"


def pairs_to_passages(question: object, context: object = None) -> tuple[list[Passage], bool]:
    """Return a passage with one question for each input, in order, and whether several may have been asked.

    Two texts or a dict of two texts are one input; lists of any length are several. A list beside a single text repeats
    the text. Questions are numbered from 0 by their ids.

    Raises:
        DataError: an input has no question or no context, or it is empty or no text; or lists differ in length.
    """
    pairs, many = _pairs(question, context)
    passages = []
    for number, pair in enumerate(pairs):
        record = f"inputs[{number}]" if many else "input"
        asked, text = (expect_text(record, name, value) for name, value in zip(_NAMES, pair, strict=True))
        passage = Passage(text, (Question(str(number), asked, (), record),))
        _, problems = check(passage)
        if problems:
            raise DataError(str(problems[0]))
        passages.append(passage)
    return passages, many


def _pairs(question: object, context: object) -> tuple[list[Pair], bool]:
    if context is not None:
        return _beside(question, context)
    if isinstance(question, Mapping):
        return _beside(*_fields("input", question))
    items, several = _as_list(question)
    if not several:
        raise DataError(f"input {shown(question)} has no context: {_FORMS}")
    return [_fields(f"inputs[{number}]", item) for number, item in enumerate(items)], True


def _beside(question: object, context: object) -> tuple[list[Pair], bool]:
    questions, several_questions = _as_list(question)
    contexts, several_contexts = _as_list(context)
    if several_questions and several_contexts and len(questions) != len(contexts):
        raise DataError(f"there are {len(questions)} questions and {len(contexts)} contexts: give as many of both")
    if not several_questions:
        questions *= len(contexts)
    if not several_contexts:
        contexts *= len(questions)
    return list(zip(questions, contexts, strict=True)), several_questions or several_contexts


def _fields(record: str, item: object) -> Pair:
    if not isinstance(item, Mapping) or any(name not in item for name in _NAMES):
        raise DataError(f"{record}: {shown(item)} is no dict with question and context: {_FORMS}")
    return item["question"], item["context"]


def _as_list(value: object) -> tuple[list[object], bool]:
    """A value's items, or the value itself as the only one; and whether it is several."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return list(value), True
    return [value], False
