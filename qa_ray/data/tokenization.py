"""Text to token ids and character offsets, each distinct text once.

Questions and contexts are encoded apart and without special tokens, straight through the Rust tokenizer: joining them,
cutting windows and padding are integer arithmetic that comes later (`windows`, `collate`).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence, Sized
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from qa_ray.schema import TOKENIZED, Answer, Passage, Problem, Question

Ints = Sequence[int]
_TokenQuestion = tuple[Question, Ints, list[tuple[int, int]]]
"""A question, its token ids, and the first and last context token of each of its answers."""
_TEXTS = ("id", "text", "record")


@lru_cache(maxsize=4)
def load_tokenizer(definition: str) -> Tokenizer:
    """Build a tokenizer from the text of its tokenizer.json, without truncation and padding; kept per process."""
    tokenizer = Tokenizer.from_str(definition)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenize(passages: Sequence[Passage], problems: Sequence[Problem], tokenizer: Tokenizer) -> pa.Table:
    """Tokenise passages into a table with schema `TOKENIZED`.

    Questions whose answer, or whose context, holds no token are left out and join `problems`, which stand in the
    table's last row.
    """
    contexts = _encode([passage.context for passage in passages], tokenizer)
    questions = _encode([question.text for passage in passages for question in passage.questions], tokenizer)
    columns = _Columns(list(problems))
    for passage in passages:
        columns.add(passage, contexts[passage.context], questions)
    return columns.table()


def _encode(texts: Iterable[str], tokenizer: Tokenizer) -> dict[str, Encoding]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, tokenizer.encode_batch(distinct, add_special_tokens=False), strict=True))


class _Columns:
    """The columns of one block, grown a passage at a time."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.contexts: list[str] = []
        self.input_ids: list[Ints] = []
        self.starts: list[Ints] = []
        self.ends: list[Ints] = []
        self.questions: list[list[_TokenQuestion]] = []

    def add(self, passage: Passage, context: Encoding, encodings: dict[str, Encoding]) -> None:
        starts, ends = zip(*context.offsets, strict=True) if len(context) else ((), ())
        # Trimming moves a start past the next one's behind a special token that stands in the text.
        ordered = list(accumulate(reversed(starts), min))[::-1]
        kept: list[_TokenQuestion] = []
        for question in passage.questions:
            answers = [answer_tokens(answer, ordered, ends) for answer in question.answers]
            problem = _without_tokens(question, passage.context, answers, len(starts))
            if problem:
                self.problems.append(problem)
            else:
                kept.append((question, encodings[question.text].ids, answers))
        self.contexts.append(passage.context)
        self.input_ids.append(context.ids)
        self.starts.append(starts)
        self.ends.append(ends)
        self.questions.append(kept)

    def table(self) -> pa.Table:
        columns = [
            pa.array([*self.contexts, ""]),
            _lists([*self.input_ids, ()]),
            _lists([*self.starts, ()]),
            _lists([*self.ends, ()]),
            _question_array([*self.questions, []]),
            pa.array([*([[]] * len(self.contexts)), [_as_dict(problem) for problem in self.problems]]),
        ]
        return pa.table([column.cast(field.type) for column, field in zip(columns, TOKENIZED, strict=True)], TOKENIZED)


def answer_tokens(answer: Answer, starts: Ints, ends: Ints) -> tuple[int, int]:
    """First and last context token that an answer touches; first > last where there is none.

    `starts` and `ends` are the context's character offsets, each in ascending order. Tokens that share a character
    (bytes of one symbol) all count as touched.
    """
    first = bisect_right(ends, answer.answer_start)
    return first, bisect_left(starts, answer.answer_start + len(answer.text)) - 1


def _without_tokens(
    question: Question, context: str, answers: Sequence[tuple[int, int]], num_tokens: int
) -> Problem | None:
    if num_tokens == 0:
        return Problem(question.record, "context", repr(context[:80]), "the tokenizer makes no token of it")
    for answer, (first, last) in zip(question.answers, answers, strict=True):
        if first > last:
            return Problem(question.record, "answers.text", repr(answer.text), "the tokenizer makes no token of it")
    return None


def _bounds(values: Sequence[Sized]) -> npt.NDArray[np.int32]:
    return np.fromiter(accumulate(map(len, values), initial=0), np.int32, len(values) + 1)


def _lists(values: Sequence[Ints]) -> pa.ListArray:
    bounds = _bounds(values)
    return pa.ListArray.from_arrays(bounds, np.fromiter(chain.from_iterable(values), np.int32, bounds[-1]))


def _question_array(groups: Sequence[Sequence[_TokenQuestion]]) -> pa.ListArray:
    rows = list(chain.from_iterable(groups))
    answers = list(chain.from_iterable(answers for _, _, answers in rows))
    answer_struct = pa.StructArray.from_arrays(
        [
            pa.array([answer.text for question, _, _ in rows for answer in question.answers], pa.string()),
            pa.array([first for first, _ in answers], pa.int32()),
            pa.array([last for _, last in answers], pa.int32()),
        ],
        ["text", "first_token", "last_token"],
    )
    columns: list[pa.Array] = [
        *(pa.array([getattr(question, name) for question, _, _ in rows], pa.string()) for name in _TEXTS),
        _lists([ids for _, ids, _ in rows]),
        pa.ListArray.from_arrays(_bounds([answers for _, _, answers in rows]), answer_struct),
    ]
    struct = pa.StructArray.from_arrays(columns, [*_TEXTS, "input_ids", "answers"])
    return pa.ListArray.from_arrays(_bounds(groups), struct)


def _as_dict(problem: Problem) -> dict[str, Any]:
    return {
        "record": problem.record,
        "field": problem.field,
        "value": problem.value,
        "message": problem.message,
    }
