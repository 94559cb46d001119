"""Passages to nested SQuAD JSON."""

from collections.abc import Iterable
from typing import Any

from qa_ray.schema import Passage, Question


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
