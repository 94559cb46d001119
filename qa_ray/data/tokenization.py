"""Text to token ids and character offsets, each distinct text once.

Questions and contexts are encoded apart and without special tokens, straight through the Rust tokenizer: joining them,
cutting windows and padding are integer arithmetic that comes later (`windows`, `collate`).
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from qa_ray.schema import TOKENIZED, Passage, Problem, Question

Ints = npt.NDArray[np.int32]


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
        self.questions: list[list[tuple[Question, Ints, Ints, Ints]]] = []

    def add(self, passage: Passage, context: Encoding, encodings: dict[str, Encoding]) -> None:
        offsets = np.fromiter(chain.from_iterable(context.offsets), np.int32, 2 * len(context)).reshape(-1, 2)
        starts, ends = np.ascontiguousarray(offsets[:, 0]), np.ascontiguousarray(offsets[:, 1])
        kept = []
        for question in passage.questions:
            first, last = answer_tokens(question, starts, ends)
            problem = _without_tokens(question, passage.context, first, last, len(starts))
            if problem:
                self.problems.append(problem)
            else:
                kept.append((question, np.array(encodings[question.text].ids, np.int32), first, last))
        self.contexts.append(passage.context)
        self.input_ids.append(np.array(context.ids, np.int32))
        self.starts.append(starts)
        self.ends.append(ends)
        self.questions.append(kept)

    def table(self) -> pa.Table:
        empty = np.empty(0, np.int32)
        columns = [
            pa.array([*self.contexts, ""]),
            _lists([*self.input_ids, empty]),
            _lists([*self.starts, empty]),
            _lists([*self.ends, empty]),
            _question_array([*self.questions, []]),
            pa.array([*([[]] * len(self.contexts)), [_as_dict(problem) for problem in self.problems]]),
        ]
        return pa.table([column.cast(field.type) for column, field in zip(columns, TOKENIZED, strict=True)], TOKENIZED)


def answer_tokens(question: Question, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """First and last context token that each answer touches, [num_answers] each; first > last where there is none.

    `starts` and `ends` are the context's character offsets. Tokens that share a character (bytes of one symbol) all
    count as touched.
    """
    if not question.answers:
        return np.empty(0, np.int32), np.empty(0, np.int32)
    begin = np.array([answer.answer_start for answer in question.answers])
    end = begin + np.array([len(answer.text) for answer in question.answers])
    first = np.searchsorted(ends, begin, side="right")
    # Trimming moves a start past the next one's behind a special token that stands in the text.
    last = np.searchsorted(np.minimum.accumulate(starts[::-1])[::-1], end, side="left") - 1
    return first.astype(np.int32), last.astype(np.int32)


def _without_tokens(question: Question, context: str, first: Ints, last: Ints, num_tokens: int) -> Problem | None:
    if num_tokens == 0:
        return Problem(question.record, "context", repr(context[:80]), "the tokenizer makes no token of it")
    if (first > last).any():
        answer = question.answers[int(np.argmax(first > last))]
        return Problem(question.record, "answers.text", repr(answer.text), "the tokenizer makes no token of it")
    return None


def _lists(values: Sequence[Ints]) -> pa.ListArray:
    bounds = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=bounds[1:])
    return pa.ListArray.from_arrays(bounds, np.concatenate(values) if values else np.empty(0, np.int32))


def _question_array(groups: Sequence[Sequence[tuple[Question, Ints, Ints, Ints]]]) -> pa.ListArray:
    rows = list(chain.from_iterable(groups))
    answers = _lists([first for _, _, first, _ in rows])
    answer_struct = pa.StructArray.from_arrays(
        [
            pa.array([answer.text for question, *_ in rows for answer in question.answers], pa.string()),
            answers.values,
            _lists([last for _, _, _, last in rows]).values,
        ],
        ["text", "first_token", "last_token"],
    )
    columns: list[pa.Array] = [
        pa.array([question.id for question, *_ in rows], pa.string()),
        pa.array([question.text for question, *_ in rows], pa.string()),
        pa.array([question.record for question, *_ in rows], pa.string()),
        _lists([ids for _, ids, _, _ in rows]),
        pa.ListArray.from_arrays(answers.offsets, answer_struct),
    ]
    bounds = np.zeros(len(groups) + 1, np.int32)
    np.cumsum([len(group) for group in groups], out=bounds[1:])
    struct = pa.StructArray.from_arrays(columns, ["id", "text", "record", "input_ids", "answers"])
    return pa.ListArray.from_arrays(bounds, struct)


def _as_dict(problem: Problem) -> dict[str, Any]:
    return {
        "record": problem.record,
        "field": problem.field,
        "value": problem.value,
        "message": problem.message,
    }
