"""Files of JSON: one document, or an object a line."""

import json
import re
from collections.abc import Iterator

from qa_ray.data.files import SourceFile
from qa_ray.data.layouts.json_values import NESTING, rows_in, rows_of_list
from qa_ray.data.layouts.source_row import CATEGORY, IMPOSSIBLE, Row, SourceRow, Wanted, listed
from qa_ray.data.layouts.unpacking import BYTE_ORDER_MARK, beginning, content, lines
from qa_ray.data.validation import shown
from qa_ray.errors import DataError
from qa_ray.schema import Problem

_HEAD_BYTES = 1 << 20
_HEAD_LINES = 5  # one of them is an object by itself, be the others odd
# The first of these keys tells what is nested; in a text, quotes are escaped.
_KEY = re.compile(rb'(?<!\\)"(paragraphs|qas|question)"\s*:')


def json_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    """Yield the rows of a document, which is read whole, or of lines, whatever the file is called.

    Raises:
        DataError: it is no JSON, or holds no questions.
    """
    head = _head(source)
    yield from (line_rows if _has_lines(head) else _document_rows)(source, wanted)


def describe_json(source: SourceFile, *, lines: bool) -> str:
    """What a file is taken for, in words; only its beginning is read.

    Args:
        source: the file.
        lines: whether its ending says that each line is an object of its own.

    Raises:
        DataError: it cannot be unpacked.
    """
    head = _head(source)
    what = "JSON lines" if lines or _has_lines(head) else "JSON"
    key = _KEY.search(head)
    if key is None:
        return what
    nested = key[1] != b"question"
    return f"{what} of paragraphs" if nested else what if what == "JSON lines" else f"{what} of rows"


def _head(source: SourceFile) -> bytes:
    return beginning(source, _HEAD_BYTES).removeprefix(BYTE_ORDER_MARK)


def _has_lines(head: bytes) -> bool:
    """Whether each line is an object of its own."""
    found = [line for line in map(bytes.strip, head.split(b"\n")) if line][:_HEAD_LINES]
    # The first line of a document opens what later ones close.
    opens = found and (found[0].endswith((b"{", b"[", b",", b":")) or found[0][:1] + found[0][-1:] == b"[}")
    return not opens and any(map(_is_row, found))


def _is_row(line: bytes) -> bool:
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not isinstance(value.get("data"), list)


def _document_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    text, columns = content(source), wanted.data.columns
    document = _parse(text, wanted)
    if isinstance(document, list):
        found = rows_of_list(document, f"{source.name} ", columns)
    elif isinstance(document, dict) and isinstance(document.get("data", []), list):
        if not document.keys() & {*NESTING, columns.question, columns.context}:
            raise DataError(f"it holds no questions: expected the list 'data', found the keys {listed(document)}")
        found = rows_in(document, source.name, columns, joint=" ")
    else:
        raise DataError(
            f"it holds no questions: expected a list of rows or an object with the list 'data', found {shown(document)}"
        )
    rows = list(found)
    # Such tools say that a question is answerable until somebody says that it is not. In a text, quotes are escaped.
    annotated = f'"{CATEGORY}"'.encode() in text
    contents = ((record, _unflagged(row) if annotated else row) for record, row in rows)
    yield from wanted.held_to(
        SourceRow(record, row, number / len(rows)) for number, (record, row) in enumerate(contents, start=1)
    )


def _unflagged(row: Row | Problem) -> Row | Problem:
    if isinstance(row, Problem) or row.get(IMPOSSIBLE) is not False:
        return row
    return {**row, IMPOSSIBLE: None}


def _parse(text: bytes, wanted: Wanted) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        option = wanted.data.option("format")
        hint = f"; if each line is an object of its own, set {option}=jsonl" if error.msg == "Extra data" else ""
        place = f"line {error.lineno} column {error.colno}"
        raise DataError(f"{place} is not JSON: {error.msg}: {shown(error.doc[error.pos :])}{hint}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"line {line} is not UTF-8: {error.reason}: {shown(error.object[error.start :])}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is not JSON that can be read: {error}") from error


def line_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    """Yield the rows of JSON lines, each a row, a paragraph or an article; MRQA's header line is none.

    Raises:
        DataError: no row has the columns.
    """
    yield from wanted.held_to(_line_rows(source, wanted))


def _line_rows(source: SourceFile, wanted: Wanted) -> Iterator[SourceRow]:
    columns, is_first = wanted.data.columns, True
    for number, (line, share) in enumerate(lines(source), start=1):
        record = f"{source.name} line {number}"
        text: str | bytes = line
        try:
            text = line.decode().strip()
            if not text:
                continue
            value = json.loads(text)
        except UnicodeDecodeError as error:
            yield SourceRow(
                record, _bad_line(record, line, f"is not UTF-8: {error.reason} at byte {error.start}"), share
            )
        except (ValueError, RecursionError) as error:
            yield SourceRow(record, _bad_line(record, text, f"is not JSON: {error}"), share)
        else:
            if not isinstance(value, dict):
                message = "expected a JSON object: one question with its context"
                yield SourceRow(record, _bad_line(record, text, message), share)
            elif not (is_first and "header" in value and columns.context not in value):
                for place, row in rows_in(value, record, columns, joint=" "):
                    yield SourceRow(place, row, share)
        is_first = False


def _bad_line(record: str, line: str | bytes, message: str) -> Problem:
    return Problem(record, "line", shown(line), message)
