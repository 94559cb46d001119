"""The nouns of extractive question answering, the Arrow schemas in which they travel, and numpy arrays by element."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bools = npt.NDArray[np.bool_]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
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
_TOKEN_ANSWER = pa.struct([("text", pa.string()), ("first_token", pa.int32()), ("last_token", pa.int32())])
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
    questions = [question for passage in passages for question in passage.questions]
    answers = [answer for question in questions for answer in question.answers]
    answer_lists = _lists(
        _structs(_ANSWER, [answer.text for answer in answers], [answer.answer_start for answer in answers]),
        [len(question.answers) for question in questions],
    )
    question_structs = _structs(
        _QUESTION,
        [question.id for question in questions],
        [question.text for question in questions],
        answer_lists,
        [question.record for question in questions],
    )
    problem_structs = _structs(
        _PROBLEM,
        [problem.record for problem in problems],
        [problem.field for problem in problems],
        [problem.value for problem in problems],
        [problem.message for problem in problems],
    )
    extra_row = [""] if problems else []
    num_questions = [len(passage.questions) for passage in passages] + [0 for _ in extra_row]
    num_problems = [0] * len(passages) + [len(problems) for _ in extra_row]
    columns = [
        pa.array([passage.context for passage in passages] + extra_row, pa.string()),
        _lists(question_structs, num_questions),
        _lists(problem_structs, num_problems),
    ]
    return pa.Table.from_arrays(columns, schema=PASSAGES)


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


def _structs(struct: pa.StructType, *columns: Sequence[Any] | pa.Array) -> pa.StructArray:
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in zip(struct, columns, strict=True)
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(struct))


def _lists(values: pa.Array, lengths: Sequence[int]) -> pa.ListArray:
    offsets = pa.array([0, *accumulate(lengths)], pa.int32())
    return pa.ListArray.from_arrays(offsets, values)
