"""Nested SQuAD JSON, versions 1.1 and 2.0, to passages and back."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from qa_ray.data.validation import WHOLE_FILE, RowError, expect_id, expect_position, expect_text, shown
from qa_ray.schema import Answer, Passage, Problem, Question

_Row = tuple[str, Mapping[str, object]] | Problem


def parse(source: str | bytes, name: str) -> Iterator[Passage | Problem]:
    """Yield a file's passages, and a problem for each part of it that cannot be read.

    `name` stands for the file in messages. A file that is no SQuAD JSON at all yields one problem, of the field `file`.
    """
    articles = _articles(source, name)
    if isinstance(articles, Problem):
        yield articles
        return
    for index, article in enumerate(articles):
        yield from _article(article, f"{name} data[{index}]")


def questions(source: str | bytes, name: str) -> Iterator[_Row]:
    """Yield each question's record and what the file says of it and its context, of whatever type; answers may lack.

    A part of the file where questions cannot be told apart yields a problem; so does a file that is no SQuAD JSON.
    """
    articles = _articles(source, name)
    if isinstance(articles, Problem):
        yield articles
        return
    for index, article in enumerate(articles):
        yield from _inner(article, "paragraphs", f"{name} data[{index}]", _asked)


def _inner(parent: object, key: str, record: str, read: Callable[[object, str], Iterator[_Row]]) -> Iterator[_Row]:
    """Yield what `read` makes of each item of the list parent[key], or a problem if there is none."""
    try:
        items = _get(parent, key, list, record)
    except RowError as error:
        yield error.problem
        return
    for index, item in enumerate(items):
        yield from read(item, f"{record}.{key}[{index}]")


def _asked(paragraph: Any, record: str) -> Iterator[_Row]:
    def row(qa: object, record: str) -> Iterator[_Row]:
        if isinstance(qa, dict):
            context = {"context": paragraph["context"]} if "context" in paragraph else {}
            yield record, {**qa, **context}
        else:
            yield Problem(record, "question", shown(qa), "expected an object with the key 'question'")

    yield from _inner(paragraph, "qas", record, row)


def _articles(source: str | bytes, name: str) -> list[Any] | Problem:
    try:
        document = json.loads(source.removeprefix("\ufeff") if isinstance(source, str) else source)
        articles: list[Any] = _get(document, "data", list, name)
    except json.JSONDecodeError as error:
        hint = "; if each line is an object of its own, set data.format=jsonl" if error.msg == "Extra data" else ""
        place = f"{name} line {error.lineno} column {error.colno}"
        text = error.doc[max(error.pos - 20, 0) : error.pos + 20]
        return Problem(place, WHOLE_FILE, shown(text), f"is not JSON: {error.msg}{hint}")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        octets = error.object[max(error.start - 20, 0) : error.start + 20]
        return Problem(f"{name} line {line}", WHOLE_FILE, shown(octets), f"is not UTF-8: {error.reason}")
    except (ValueError, RecursionError) as error:
        return Problem(name, WHOLE_FILE, shown(source), f"is not JSON: {error}")
    except RowError as error:
        message = f"is not nested SQuAD JSON: {error.problem.field} {error.problem.message}"
        return Problem(name, WHOLE_FILE, error.problem.value, message)
    return articles


def _article(article: object, path: str) -> Iterator[Passage | Problem]:
    try:
        paragraphs = _get(article, "paragraphs", list, path)
    except RowError as error:
        yield error.problem
        return
    for index, paragraph in enumerate(paragraphs):
        yield from _paragraph(paragraph, f"{path}.paragraphs[{index}]")


def _paragraph(paragraph: object, path: str) -> Iterator[Passage | Problem]:
    try:
        context = expect_text(path, "context", _get(paragraph, "context", str, path))
        qas = _get(paragraph, "qas", list, path)
    except RowError as error:
        yield error.problem
        return
    questions = []
    for index, qa in enumerate(qas):
        try:
            questions.append(_question(qa, f"{path}.qas[{index}]"))
        except RowError as error:
            yield error.problem
    yield Passage(context, tuple(questions))


def _question(qa: object, path: str) -> Question:
    identifier = expect_id(path, "id", _get(qa, "id", object, path))
    text = expect_text(path, "question", _get(qa, "question", str, path))
    return Question(identifier, text, _answers(qa, path), path)


def _answers(qa: Any, path: str) -> tuple[Answer, ...]:
    impossible = _get(qa, "is_impossible", bool, path) if "is_impossible" in qa else None
    if impossible and "answers" not in qa:
        return ()
    answers = _get(qa, "answers", list, path)
    if impossible and answers:
        message = "expected no answers where is_impossible is true: drop the answers, or set it to false"
        raise RowError(Problem(path, "answers", shown(answers), message))
    if impossible is False and not answers:
        message = "expected an answer where is_impossible is false: give one, or set it to true"
        raise RowError(Problem(path, "answers", shown(answers), message))
    return tuple(_answer(answer, f"answers[{index}]", path) for index, answer in enumerate(answers))


def _answer(answer: object, field: str, path: str) -> Answer:
    text = _get(answer, "text", str, path, f"{field}.")
    start = _get(answer, "answer_start", object, path, f"{field}.")
    return Answer(expect_text(path, f"{field}.text", text), expect_position(path, f"{field}.answer_start", start))


_WORDS = {list: "a list", str: "text", bool: "true or false", object: "a value"}


def _get(parent: object, key: str, kind: type, record: str, prefix: str = "") -> Any:
    """Return parent[key], which must be of type `kind`; prefix + key is its name in messages."""
    field = prefix + key
    if not isinstance(parent, dict):
        raise RowError(Problem(record, field, shown(parent), f"expected an object with the key {key!r}"))
    if key not in parent:
        there = ", ".join(parent) or "none"
        raise RowError(Problem(record, field, "(missing)", f"expected {_WORDS[kind]}; the keys there are: {there}"))
    value = parent[key]
    if not isinstance(value, kind):
        raise RowError(Problem(record, field, shown(value), f"expected {_WORDS[kind]}"))
    return value


def to_squad(passages: Iterable[Passage], title: str) -> dict[str, Any]:
    """Return passages as one article of SQuAD JSON version 2.0, to be written with json.dump."""
    paragraphs = [
        {"context": passage.context, "qas": [_to_qa(question) for question in passage.questions]}
        for passage in passages
    ]
    return {"version": "v2.0", "data": [{"title": title, "paragraphs": paragraphs}]}


def _to_qa(question: Question) -> dict[str, Any]:
    answers = [{"text": answer.text, "answer_start": answer.answer_start} for answer in question.answers]
    return {"id": question.id, "question": question.text, "answers": answers, "is_impossible": not answers}
