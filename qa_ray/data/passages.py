"""Rows to passages, and passages to tables: columns and ids."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from qa_ray.config.data import DataConfig
from qa_ray.data.answers import cell, read_answers
from qa_ray.data.files import HubSplit, SourceFile, find_files
from qa_ray.data.layouts.source_row import Row, SourceRow
from qa_ray.data.rows import read_rows
from qa_ray.data.validation import WHOLE_FILE, RowError, expect_id, expect_text, shown
from qa_ray.errors import DataError
from qa_ray.schema import PASSAGES, Passage, Problem, Question, passages_to_table, table_to_passages

_TABLE_PASSAGES = 256


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
    return Passage(context, (Question(identifier, text, read_answers(record, row, context, data), record),))


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
