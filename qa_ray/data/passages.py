"""Rows to passages, and passages to tables: columns, the layouts of answers, ids."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from qa_ray.config.fine_tuning import Columns, DataConfig
from qa_ray.config.policies import ImpossibleAnswers
from qa_ray.data.files import HubSplit, SourceFile, find_files
from qa_ray.data.rows import IMPOSSIBLE, Row, SourceRow, read_rows
from qa_ray.data.validation import WHOLE_FILE, RowError, expect_id, expect_position, expect_text, shown
from qa_ray.errors import DataError
from qa_ray.schema import PASSAGES, Answer, Passage, Problem, Question, passages_to_table, table_to_passages

_TABLE_PASSAGES = 256
_KEYS = ("text", "answer_start")
# pandas makes a column of flags floats where one is missing.
_FLAGS = {
    **dict.fromkeys(("true", "1", "1.0"), True),
    **dict.fromkeys(("false", "0", "0.0"), False),
    **dict.fromkeys(("none", "nan", ""), None),
}


def find_sources(data: DataConfig, location: str) -> Sequence[SourceFile | HubSplit]:
    """Return the files at `location`, or the split of that name of the Hub data set.

    Raises:
        DataError: nothing is there, or the layout of a file is not known.
    """
    return find_files(data, location) if data.hub is None else [HubSplit(data.hub, location)]


def read_split(data: DataConfig, location: str, max_examples: int | None = None) -> tuple[list[Passage], list[Problem]]:
    """Return the passages and the problems of a whole split, without Ray.

    Raises:
        DataError: nothing is at `location`, or the layout of a file is not known.
    """
    return table_to_passages(pa.concat_tables(read_tables(find_sources(data, location), data, max_examples)))


def read_tables(
    sources: Iterable[SourceFile | HubSplit], data: DataConfig, max_examples: int | None
) -> Iterator[pa.Table]:
    """Yield what `read_passages` does as PASSAGES tables, at least an empty one."""
    yield PASSAGES.empty_table()
    yield from to_tables(read_passages(sources, data, max_examples))


def read_passages(
    sources: Iterable[SourceFile | HubSplit], data: DataConfig, max_examples: int | None = None
) -> Iterator[Passage | Problem]:
    """Yield a passage for each question of `sources`, up to `max_examples`, and a problem for each row without one.

    Why a source cannot be read is told by a problem too, not raised: it has the field `file`.
    """
    num_questions = 0
    for source in sources:
        try:
            for item in rows_to_passages(read_rows(source, data), data):
                yield item
                num_questions += isinstance(item, Passage)
                if num_questions == max_examples:
                    return
        except DataError as error:
            yield Problem(source.name, WHOLE_FILE, shown(source.location), str(error))


def rows_to_passages(rows: Iterable[SourceRow], data: DataConfig) -> Iterator[Passage | Problem]:
    """Yield a passage with one question for each row, or why there is none."""
    has_ids = None
    for record, row, _ in rows:
        if isinstance(row, Problem):
            yield row
            continue
        has_ids = data.columns.id in row if has_ids is None else has_ids
        try:
            yield _passage(record, row, data, has_ids=has_ids)
        except RowError as error:
            yield error.problem


def _passage(record: str, row: Row, data: DataConfig, *, has_ids: bool) -> Passage:
    columns = data.columns
    context = expect_text(record, columns.context, cell(record, row, columns.context))
    text = expect_text(record, columns.question, cell(record, row, columns.question))
    identifier = record  # stable, and unique within a split
    if has_ids or columns.id in row:
        identifier = expect_id(record, columns.id, cell(record, row, columns.id))
    return Passage(context, (Question(identifier, text, _answers(record, row, data), record),))


def cell(record: str, row: Row, column: str, field: str | None = None) -> object:
    """Return what a row has in a column; `field` is the column's name in messages, if another.

    Raises:
        RowError: nothing, not even null.
    """
    if column not in row:
        there = ", ".join(row) or "none"
        message = f"expected a value; the keys there are: {there}"
        raise RowError(Problem(record, field or column, "(missing)", message))
    return row[column]


def _answers(record: str, row: Row, data: DataConfig) -> tuple[Answer, ...]:
    """Return a row's answers, which must not contradict what it says of their being there."""
    impossible = _FLAGS.get(str(row.get(IMPOSSIBLE)).strip().lower(), ...)
    if impossible is ...:
        raise RowError(Problem(record, IMPOSSIBLE, shown(row[IMPOSSIBLE]), "expected true or false"))
    field = data.columns.answers
    if impossible and (field not in row or data.impossible_answers is ImpossibleAnswers.IGNORE):
        return ()
    answers = _stated_answers(record, row, data)
    if impossible is not None and impossible is bool(answers):
        message = (
            "expected no answers where is_impossible is true: drop the answers, set it to false, or, if they are only "
            f"plausible ones, set {data.option('impossible_answers')}=ignore"
            if impossible
            else "expected an answer where is_impossible is false: give one, or set it to true"
        )
        raise RowError(Problem(record, field, shown(row[field]), message))
    return answers


def _stated_answers(record: str, row: Row, data: DataConfig) -> tuple[Answer, ...]:
    """Return a row's answers from {text, answer_start}, a list of such, or plain text with a column of its starts."""
    columns, field = data.columns, data.columns.answers
    value = _decoded(cell(record, row, field), has_start=_is_start(row.get(columns.answer_start)))
    if _is_nothing(value):
        return ()
    if isinstance(value, dict):
        return _pairs(record, columns, *(cell(record, value, key, f"{field}.{key}") for key in _KEYS))
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        parts = ([cell(record, item, key, f"{field}[{n}].{key}") for n, item in enumerate(value)] for key in _KEYS)
        return _pairs(record, columns, *parts)
    if columns.answer_start not in row:
        message = f"is plain text, so a column must say where it starts: there is no {columns.answer_start!r}; name it"
        option = data.option("columns.answer_start")
        raise RowError(Problem(record, field, shown(value), f"{message} with {option}=..."))
    return _pairs(record, columns, value, row[columns.answer_start], in_column=True)


def _decoded(value: object, *, has_start: bool) -> object:
    """Return what a cell with JSON holds: CSV has no cells for objects. Other text, also text in brackets, stays.

    Text whose start stands in a column is an answer, be it `[]`, unless it holds answers with starts of their own.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError):
        return value
    items = decoded if isinstance(decoded, list) else [decoded]
    stated = all(isinstance(item, dict) for item in items)
    if has_start:
        stated = stated and bool(items) and all(key in item for item in items for key in _KEYS)
    return decoded if stated else value


def _is_nothing(value: object) -> bool:
    return value is None or value == [] or value != value or (isinstance(value, str) and not value.strip())


def _pairs(
    record: str, columns: Columns, texts: object, starts: object, *, in_column: bool = False
) -> tuple[Answer, ...]:
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
    return tuple(answers)


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


def to_tables(items: Iterable[Passage | Problem]) -> Iterator[pa.Table]:
    """Yield PASSAGES tables of up to 256 passages; a context comes once in a table, with all its questions."""
    contexts: dict[str, list[Question]] = {}
    problems: list[Problem] = []
    for item in items:
        is_new = isinstance(item, Passage) and item.context not in contexts
        if len(problems) == _TABLE_PASSAGES or (is_new and len(contexts) == _TABLE_PASSAGES):
            yield _table(contexts, problems)
            contexts, problems = {}, []
        if isinstance(item, Passage):
            contexts.setdefault(item.context, []).extend(item.questions)
        else:
            problems.append(item)
    if contexts or problems:
        yield _table(contexts, problems)


def _table(contexts: dict[str, list[Question]], problems: list[Problem]) -> pa.Table:
    passages = [Passage(context, tuple(questions)) for context, questions in contexts.items()]
    return passages_to_table(passages, problems)
