"""The answers that a row states, in every form that public tools give them."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from qa_ray.config.data import Columns, DataConfig
from qa_ray.config.policies import ImpossibleAnswers
from qa_ray.data.layouts.source_row import CATEGORY, IMPOSSIBLE, SPANS, Row, listed
from qa_ray.data.literals import parse_literal
from qa_ray.data.validation import CONTRADICTORY, RowError, expect_position, expect_text, shown
from qa_ray.schema import Answer, Problem

_KEYS = ("text", "answer_start")
# pandas makes a column of flags floats where one is missing.
_FLAGS = {
    **dict.fromkeys(("true", "1", "1.0"), True),
    **dict.fromkeys(("false", "0", "0.0"), False),
    **dict.fromkeys(("none", "nan", ""), None),
}
_NONE_WORDS = ("nan", "none", "null")  # in tables of text; where a start is given, they are answers
_NONE_CATEGORIES = {"NOT_GIVEN", "NO_ANSWER", "NONE"}


def cell(record: str, row: Row, column: str, field: str | None = None) -> object:
    """Return what a row has in a column; `field` is the column's name in messages, if another.

    Raises:
        RowError: nothing, not even null.
    """
    if column not in row:
        message = f"expected a value; the keys there are: {listed(row)}"
        raise RowError(Problem(record, field or column, "(missing)", message))
    return row[column]


def read_answers(record: str, row: Row, context: str, data: DataConfig) -> tuple[Answer, ...]:
    """Return a row's answers, which must not contradict what it says of their being there.

    Raises:
        RowError: they do, or cannot be read.
    """
    impossible = _FLAGS.get(str(row.get(IMPOSSIBLE)).strip().lower(), ...)
    if impossible is ...:
        raise RowError(Problem(record, IMPOSSIBLE, shown(row[IMPOSSIBLE]), "expected true or false"))
    field = data.columns.answers
    if impossible and (field not in row or data.impossible_answers is ImpossibleAnswers.IGNORE):
        return ()
    if row.get(SPANS):
        return tuple(_detected(record, row[SPANS], context))
    has_start = _is_start(row.get(data.columns.answer_start))
    value = _decoded(cell(record, row, field), has_start=has_start)
    if isinstance(value, str) and not has_start and value.strip().lower() in _NONE_WORDS:
        value = None
    annotated = _annotated(record, field, value)
    answers = _stated(record, row, value if annotated is None else annotated, data, impossible=bool(impossible))
    if impossible is not None and impossible is bool(answers) and (impossible or annotated is None):
        message = (
            f"{CONTRADICTORY}: drop the answers, set it to false, or, if they are only "
            f"plausible ones, set {data.option('impossible_answers')}=ignore"
            if impossible
            else "expected an answer where is_impossible is false: give one, or set it to true"
        )
        raise RowError(Problem(record, field, shown(row[field]), message))
    return answers


def _annotated(record: str, field: str, value: object) -> list[dict[str, Any]] | None:
    """The given ones of answers that an annotation tool exports with a category; None where it gives none."""
    if not _is_list_of_dicts(value) or not any(item.get(CATEGORY) for item in value):
        return None
    given = []
    for index, item in enumerate(value):
        category = item.get(CATEGORY)
        is_none = isinstance(category, str) and category.upper() in _NONE_CATEGORIES
        if is_none and not _is_nothing(item.get("text")):
            place = f"{field}[{index}].{CATEGORY}"
            message = f"contradicts its text {shown(item['text'])}: drop the text, or mend the category"
            raise RowError(Problem(record, place, shown(category), message))
        if not is_none:
            given.append(item)
    return given


def _stated(record: str, row: Row, value: object, data: DataConfig, *, impossible: bool) -> tuple[Answer, ...]:
    """Return a row's answers from {text, answer_start}, a list of such, or plain text with a column of its starts."""
    columns, field = data.columns, data.columns.answers
    if _is_nothing(value):
        return ()
    in_column = False
    texts: object
    starts: object
    if isinstance(value, dict):
        texts, starts = (cell(record, value, key, f"{field}.{key}") for key in _KEYS)
    elif _is_list_of_dicts(value):
        texts, starts = (
            [cell(record, item, key, f"{field}[{n}].{key}") for n, item in enumerate(value)] for key in _KEYS
        )
    elif columns.answer_start in row:
        given = row[columns.answer_start]
        texts, starts, in_column = value, _structure(given), True
        if starts is not given:  # text of a list, and so are the answers
            texts = _structure(value)
    else:
        message = f"is plain text, so a column must say where it starts: there is no {columns.answer_start!r}; name it"
        option = data.option("columns.answer_start")
        raise RowError(Problem(record, field, shown(value), f"{message} with {option}=..."))
    answers = _pairs(record, columns, texts, starts, in_column=in_column)
    # Without text it is none, as the row says.
    return tuple(answer for answer in answers if not impossible or answer.text.strip())


def _detected(record: str, value: object, context: str) -> Iterator[Answer]:
    """MRQA's answers: all places of each, as its first and last character; their text is what stands there."""
    places: dict[tuple[int, int], None] = {}
    if isinstance(value, dict) and isinstance(value.get("char_spans"), list):
        value = [{"char_spans": spans} for spans in value["char_spans"]]  # as the Hub has it: a list for each field
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        spans = item.get("char_spans") if isinstance(item, dict) else None
        if isinstance(spans, dict) and all(isinstance(spans.get(end), list) for end in ("start", "end")):
            spans = [list(ends) for ends in zip(spans["start"], spans["end"], strict=False)]
        field = f"{SPANS}[{index}]"
        if not isinstance(spans, list):
            raise RowError(Problem(record, field, shown(item), "expected an object with the list 'char_spans'"))
        for number, span in enumerate(spans):
            place = f"{field}.char_spans[{number}]"
            ends = [_whole(end) for end in span] if isinstance(span, list) else []
            if len(ends) != 2 or not all(type(end) is int for end in ends):
                raise RowError(Problem(record, place, shown(span), "expected the places of two characters"))
            first, last = (expect_position(record, place, end) for end in ends)
            if not 0 <= first <= last < len(context):
                message = f"is not in the context, which has {len(context)} characters: mend first and last character"
                raise RowError(Problem(record, place, shown(span), message))
            places[first, last] = None
    for first, last in places:
        yield Answer(context[first : last + 1], first)


def _decoded(value: object, *, has_start: bool) -> object:
    """Return what a cell with JSON or Python's text holds: CSV has no cells for objects. Other text stays.

    Text whose start stands in a column is an answer, be it `[]`, unless it holds answers with starts of their own.
    """
    decoded = _structure(value)
    items = decoded if isinstance(decoded, list) else [decoded]
    if not _is_list_of_dicts(items):
        return value
    whole = bool(items) and all(key in item for item in items for key in _KEYS)
    return decoded if whole or not has_start else value


def _structure(value: object) -> object:
    """The dict or list that a text holds as JSON or as Python writes it; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[", "array(")):
        return value
    for parse in (json.loads, parse_literal):
        with contextlib.suppress(ValueError, RecursionError):
            return parse(value)
    return value


def _is_list_of_dicts(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_nothing(value: object) -> bool:
    return value is None or value == [] or value != value or (isinstance(value, str) and not value.strip())


def _pairs(
    record: str, columns: Columns, texts: object, starts: object, *, in_column: bool = False
) -> Sequence[Answer]:
    """Return the answers with `texts` and `starts`, each one value or a list of them."""
    if _is_nothing(texts):
        return ()
    field = columns.answers
    text_list = texts if isinstance(texts, list) else [texts]
    start_list = starts if isinstance(starts, list) else [starts]
    if len(text_list) != len(start_list):
        name = columns.answer_start if in_column else f"{field}.answer_start"
        message = f"expected a start for each answer: {len(text_list)} texts and {len(start_list)} starts"
        raise RowError(Problem(record, name, shown(starts), message))
    answers = []
    for index, (text, start) in enumerate(zip(text_list, start_list, strict=True)):
        place = f"{columns.answer_start}[{index}]" if in_column else f"{field}[{index}].answer_start"
        answers.append(Answer(expect_text(record, f"{field}[{index}].text", text), _start(record, place, start)))
    return answers


def _start(record: str, field: str, value: object) -> int:
    """Return a start that may be written as text, or as a float where pandas filled a gap in the column."""
    return expect_position(record, field, _whole(value))


def _is_start(value: object) -> bool:
    """Whether a cell of the column of starts holds one, or a list of them."""
    starts = [_whole(start) for start in (value if isinstance(value, list) else [value])]
    return bool(starts) and all(isinstance(start, int) and start >= 0 for start in starts)


def _whole(value: object) -> object:
    number = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            number = float(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value
