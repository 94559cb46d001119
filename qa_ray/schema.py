"""The nouns of extractive question answering, the Arrow schemas in which they travel, and numpy arrays by element."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bools = npt.NDArray[np.bool_]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
UInt8s = npt.NDArray[np.uint8]
UInt64s = npt.NDArray[np.uint64]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answer:
    """One reference answer: context[answer_start : answer_start + len(text)] is `text`."""

    text: str
    answer_start: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a passage; no answers means that the passage holds none."""

    id: str
    text: str
    answers: tuple[Answer, ...]
    record: str
    """Where the question was read, for error messages: `train.json data[3].paragraphs[0].qas[2]`."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A context and the questions about it."""

    context: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be used, in words that tell its reader what to mend."""

    record: str
    field: str
    value: str
    """The offending value, cut to a readable length."""
    message: str

    def __str__(self) -> str:
        return f"{self.record}: {self.field}={self.value}: {self.message}"


class Prediction(NamedTuple):
    """One answer candidate of a question."""

    text: str
    """Empty where the prediction is that the context holds no answer."""
    probability: float
    start_logit: float
    end_logit: float


class Answered(TypedDict):
    """One answer: `answer` is context[start:end], and empty with start = end = 0 where the context holds none."""

    score: float
    start: int
    end: int
    answer: str
    context: NotRequired[int | None]
    """Place of its context among several for one question; None where none of them holds an answer."""


_ANSWER = pa.struct([("text", pa.string()), ("answer_start", pa.int32())])
_QUESTION = pa.struct(
    [("id", pa.string()), ("text", pa.string()), ("answers", pa.list_(_ANSWER)), ("record", pa.string())]
)
_PROBLEM = pa.struct(
    [("record", pa.string()), ("field", pa.string()), ("value", pa.string()), ("message", pa.string())]
)

PASSAGES = pa.schema(
    [
        ("context", pa.string()),
        ("questions", pa.list_(_QUESTION)),
        ("problems", pa.list_(_PROBLEM)),
    ]
)
"""A row per passage, as read. `problems` tells of rows that could not be read; such a row may hold no question."""

_TOKENS = pa.list_(pa.int32())
_TOKEN_ANSWER = pa.struct(
    [("text", pa.string()), ("answer_start", pa.int32()), ("first_token", pa.int32()), ("last_token", pa.int32())]
)
_TOKEN_QUESTION = pa.struct(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("record", pa.string()),
        ("input_ids", _TOKENS),
        ("answers", pa.list_(_TOKEN_ANSWER)),
    ]
)

TOKENIZED = pa.schema(
    [
        ("context", pa.string()),
        ("input_ids", _TOKENS),
        ("offset_starts", _TOKENS),
        ("offset_ends", _TOKENS),
        ("questions", pa.list_(_TOKEN_QUESTION)),
        ("problems", pa.list_(_PROBLEM)),
    ]
)
"""A row per passage, tokenised without special tokens: context ids with their character offsets, question ids, and
each answer as the first and the last context token that it touches."""


def passages_to_table(passages: Sequence[Passage], problems: Sequence[Problem] = ()) -> pa.Table:
    """Return a PASSAGES table with a row per passage; problems stand in one more row, which holds no question."""
    rows: list[dict[str, Any]] = [
        {"context": passage.context, "questions": [_fields(question) for question in passage.questions], "problems": []}
        for passage in passages
    ]
    if problems:
        rows.append({"context": "", "questions": [], "problems": [asdict(problem) for problem in problems]})
    return pa.Table.from_pylist(rows, PASSAGES)


def table_to_passages(table: pa.Table) -> tuple[list[Passage], list[Problem]]:
    """Return the passages and the problems of a PASSAGES table; a row that only tells of problems is no passage."""
    passages: list[Passage] = []
    problems: list[Problem] = []
    for row in table.select(PASSAGES.names).to_pylist():
        problems.extend(Problem(**problem) for problem in row["problems"] or ())
        if row["context"] or row["questions"] or not row["problems"]:
            passages.append(Passage(row["context"], tuple(_question(fields) for fields in row["questions"])))
    return passages, problems


def _question(fields: dict[str, Any]) -> Question:
    answers = tuple(Answer(**answer) for answer in fields["answers"])
    return Question(fields["id"], fields["text"], answers, fields["record"])


def _fields(question: Question) -> dict[str, Any]:
    # Ten times as fast as dataclasses.asdict.
    answers = [{"text": answer.text, "answer_start": answer.answer_start} for answer in question.answers]
    return {"id": question.id, "text": question.text, "answers": answers, "record": question.record}
