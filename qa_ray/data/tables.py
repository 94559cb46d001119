"""Flat rows (JSONL, Parquet, CSV, Hub) to passages: columns, the layouts of answers, ids; and passages to tables."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from qa_ray.config.fine_tuning import Columns
from qa_ray.data.validation import RowError, expect_id, expect_position, expect_text, shown
from qa_ray.errors import DataError
from qa_ray.schema import Answer, Passage, Problem, Question, passages_to_table

Row = Mapping[str, object]

_TABLE_PASSAGES = 256


def rows_to_passages(
    rows: Iterable[tuple[str, Row] | Problem], columns: Columns, names: Collection[str] | None = None
) -> Iterator[Passage | Problem]:
    """Yield a passage with one question for each (record, row), and a problem for each row that cannot be read.

    Without the `names` of the table's columns, the keys of the first row stand for them.

    Raises:
        DataError: a column is missing.
    """
    if names is not None:
        require_columns(names, columns)
    for item in rows:
        if isinstance(item, Problem):
            yield item
            continue
        record, row = item
        if names is None:
            names = tuple(row)
            require_columns(names, columns)
        try:
            yield _passage(record, row, columns, names)
        except RowError as error:
            yield error.problem


def require_columns(names: Collection[str], columns: Columns, *, answers: bool = True) -> None:
    """Raise DataError if a table with columns `names` has not what `columns` asks for."""
    options = ["context", "question", "answers"] if answers else ["context", "question"]
    if columns.id != Columns().id:
        options.append("id")
    for option in options:
        if getattr(columns, option) not in names:
            raise _missing_column(option, names, columns)


def _missing_column(option: str, names: Collection[str], columns: Columns) -> DataError:
    there = ", ".join(names) or "none"
    return DataError(
        f"there is no column {getattr(columns, option)!r}; the columns there are: {there}. "
        f"Name the right one with data.columns.{option}=..."
    )


def _passage(record: str, row: Row, columns: Columns, names: Collection[str]) -> Passage:
    context = expect_text(record, columns.context, cell(record, row, columns.context))
    text = expect_text(record, columns.question, cell(record, row, columns.question))
    identifier = record  # stable, and unique within a split
    if columns.id in names or columns.id in row:
        identifier = expect_id(record, columns.id, cell(record, row, columns.id))
    question = Question(identifier, text, _answers(record, row, columns, names), record)
    return Passage(context, (question,))


def cell(record: str, row: Row, column: str) -> object:
    """Return what a row has in a column.

    Raises:
        RowError: nothing, not even null.
    """
    if column not in row:
        there = ", ".join(row) or "none"
        raise RowError(Problem(record, column, "(missing)", f"expected a value; the keys there are: {there}"))
    return row[column]


def _answers(record: str, row: Row, columns: Columns, names: Collection[str]) -> tuple[Answer, ...]:
    """Return a row's answers from {text, answer_start}, a list of such, or plain text with a column of its starts."""
    field = columns.answers
    value = _decoded(cell(record, row, field))
    if _is_nothing(value):
        return ()
    if isinstance(value, dict):
        return _pairs(record, field, _part(record, field, value, "text"), _part(record, field, value, "answer_start"))
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        texts = [_part(record, f"{field}[{index}]", item, "text") for index, item in enumerate(value)]
        starts = [_part(record, f"{field}[{index}]", item, "answer_start") for index, item in enumerate(value)]
        return _pairs(record, field, texts, starts)
    if columns.answer_start not in names and columns.answer_start not in row:
        message = f"{field} is plain text ({shown(value)}), so a column must say where it starts: "
        raise DataError(f"{record}: {message}{_missing_column('answer_start', names, columns)}")
    return _pairs(record, field, value, cell(record, row, columns.answer_start), columns.answer_start)


def _decoded(value: object) -> object:
    """Return what a cell with JSON holds: CSV has no cells for objects. Other text, also text in brackets, stays."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError):
        return value
    items = decoded if isinstance(decoded, list) else [decoded]
    return decoded if all(isinstance(item, dict) for item in items) else value


def _is_nothing(value: object) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _part(record: str, field: str, answer: dict[str, object], key: str) -> object:
    if key not in answer:
        there = ", ".join(answer) or "none"
        raise RowError(Problem(record, f"{field}.{key}", "(missing)", f"expected a value; the keys there are: {there}"))
    return answer[key]


def _pairs(record: str, field: str, texts: object, starts: object, start_field: str = "") -> tuple[Answer, ...]:
    """Return the answers with `texts` and `starts`, each one value or a list of them."""
    start_field = start_field or f"{field}.answer_start"
    if _is_nothing(texts):
        return ()
    text_list = texts if isinstance(texts, list) else [texts]
    start_list = starts if isinstance(starts, list) else [starts]
    if len(text_list) != len(start_list):
        message = f"expected a start for each answer: {len(text_list)} texts and {len(start_list)} starts"
        raise RowError(Problem(record, start_field, shown(starts), message))
    return tuple(
        Answer(expect_text(record, f"{field}[{index}].text", text), _start(record, start_field, index, start))
        for index, (text, start) in enumerate(zip(text_list, start_list, strict=True))
    )


def _start(record: str, field: str, index: int, value: object) -> int:
    """Return a start that may be written as text, or as a float where pandas filled a gap in the column."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return expect_position(record, f"{field}[{index}]", value if number is None else number)


def first_questions(items: Iterable[Passage | Problem], limit: int | None) -> Iterator[Passage | Problem]:
    """Yield items up to the question number `limit`, and read no further."""
    left = limit
    for item in items:
        if left is None or isinstance(item, Problem):
            yield item
            continue
        yield replace(item, questions=item.questions[:left])
        left -= len(item.questions)
        if left <= 0:
            return


def to_tables(items: Iterable[Passage | Problem]) -> Iterator[pa.Table]:
    """Yield PASSAGES tables of up to 256 passages; a context comes once in a table, with all its questions."""
    contexts: dict[str, list[Question]] = {}
    problems: list[Problem] = []
    for item in items:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            if item.context not in contexts and len(contexts) == _TABLE_PASSAGES:
                yield _table(contexts, problems)
                contexts, problems = {}, []
            contexts.setdefault(item.context, []).extend(item.questions)
        if len(problems) == _TABLE_PASSAGES:
            yield _table(contexts, problems)
            contexts, problems = {}, []
    if contexts or problems:
        yield _table(contexts, problems)


def _table(contexts: dict[str, list[Question]], problems: list[Problem]) -> pa.Table:
    passages = [Passage(context, tuple(questions)) for context, questions in contexts.items()]
    return passages_to_table(passages, problems)
