"""The questions in what JSON holds: flat rows, or articles and paragraphs nested as in SQuAD."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from qa_ray.config.data import Columns
from qa_ray.data.layouts.source_row import Row
from qa_ray.data.validation import shown
from qa_ray.schema import Problem

Content = tuple[str, Row | Problem]
"""Where a row stands, and what it says or why it cannot be read."""

NESTING = ("data", "paragraphs", "qas")
"""Keys of the lists that hold others: articles, their paragraphs, their questions."""


def rows_in(
    value: object,
    record: str,
    columns: Columns,
    *,
    keys: Sequence[str] = NESTING,
    expected: str | None = None,
    joint: str = ".",
) -> Iterator[Content]:
    """Yield the rows of a document, an article, a paragraph or a flat row, told apart by their keys.

    Args:
        value: what JSON made of it.
        record: where it stands.
        columns: names of the columns; in nested questions SQuAD's own names do as well.
        keys: those of `NESTING` that may come here.
        expected: which of them it must have, as what stands beside it does.
        joint: stands between the record and a key.
    """
    key = _key(value, columns, keys) or expected
    if isinstance(value, dict) and (key is None or columns.question in value):
        yield record, value
        return
    items = value.get(key, ...) if isinstance(value, dict) else value
    if not isinstance(value, dict) or not isinstance(items, list):
        what = f"the list {key!r}" if key else f"the keys {columns.question!r} and {columns.context!r}"
        found = "(missing)" if items is ... else shown(items)
        yield record, Problem(record, key or "row", found, f"expected an object with {what}")
    elif key == "qas":
        for index, item in enumerate(items):
            yield _question(item, f"{record}{joint}qas[{index}]", value, columns)
    else:
        deeper = NESTING[NESTING.index(str(key)) + 1 :]
        yield from rows_of_list(items, f"{record}{joint}{key}", columns, deeper)


def rows_of_list(
    items: Sequence[object], record: str, columns: Columns, keys: Sequence[str] = NESTING
) -> Iterator[Content]:
    """Yield the rows of all items of a list; one that is of another kind spoils no other."""
    found = (_key(item, columns, keys) for item in items)
    expected = next((key for key in found if key), None)
    for index, item in enumerate(items):
        yield from rows_in(item, f"{record}[{index}]", columns, keys=keys, expected=expected)


def _key(value: object, columns: Columns, keys: Sequence[str]) -> str | None:
    """The key of the list that holds others; None for a flat row, and for what is no object."""
    if not isinstance(value, dict) or columns.question in value:
        return None
    return next((key for key in keys if key in value), None)


def _question(item: object, record: str, paragraph: Row, columns: Columns) -> Content:
    """A question with its paragraph's context, its keys by the names of the columns."""
    if not isinstance(item, dict):
        message = f"expected an object with the key {columns.question!r}"
        return record, Problem(record, columns.question, shown(item), message)
    row = dict(item)
    for key in (columns.context, "context"):
        if key in paragraph:
            row[columns.context] = paragraph[key]
            break
    if "qid" in row:
        row.setdefault("id", row["qid"])  # as MRQA has it
    for default, name in asdict(columns).items():
        if name not in row and default in row:
            row[name] = row[default]
    return record, row
