"""A tokenised split as numpy views of its Arrow blocks: nothing is copied but small integers per question."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from qa_ray.schema import Int32s, Int64s


@dataclass(frozen=True, slots=True)
class Block:
    """Views of one table: `*_bounds[i] : *_bounds[i + 1]` are the places of row i in the values beside it."""

    contexts: pa.Array
    context_bounds: Int32s
    context_ids: Int32s
    offset_starts: Int32s
    offset_ends: Int32s
    passage_bounds: Int32s
    questions: pa.StructArray
    question_bounds: Int32s
    question_ids: Int32s
    answer_bounds: Int32s
    answers: pa.StructArray


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def view(table: pa.Table) -> Block:
    """View a table of schema TOKENIZED, whatever it was cut from."""
    ids, starts, ends = (_whole(table[name]) for name in ("input_ids", "offset_starts", "offset_ends"))
    passages = _whole(table["questions"])
    questions = passages.values
    question_ids, answers = questions.field("input_ids"), questions.field("answers")
    return Block(
        contexts=_whole(table["context"]),
        context_bounds=ids.offsets.to_numpy(),
        context_ids=ids.values.to_numpy(),
        offset_starts=starts.values.to_numpy(),
        offset_ends=ends.values.to_numpy(),
        passage_bounds=passages.offsets.to_numpy(),
        questions=questions,
        question_bounds=question_ids.offsets.to_numpy(),
        question_ids=question_ids.values.to_numpy(),
        answer_bounds=answers.offsets.to_numpy(),
        answers=answers.values,
    )


class Corpus:
    """The questions of one split, numbered from 0, and their passages.

    Attributes:
        block: block of each question, [num_questions].
        row: row of each question among the block's questions, [num_questions].
        passage: row of each question's passage in the block, [num_questions].
        question_lengths: tokens of each question, [num_questions].
        context_lengths: tokens of each question's context, [num_questions].
        answer_first: first context token of each question's first answer, -1 where there is none, [num_questions].
        answer_last: last context token of the same answer, inclusive, [num_questions].
        answer_counts: reference answers of each question, [num_questions].
    """

    def __init__(self, tables: Sequence[pa.Table], selection: Int64s | None = None) -> None:
        """View `tables` (schema `TOKENIZED`); `selection` keeps only these questions, by their number in the tables."""
        self._blocks = [view(table) for table in tables]
        self._question_ids = [block.question_ids for block in self._blocks]
        self._context_ids = [block.context_ids for block in self._blocks]
        parts = [_index(number, block) for number, block in enumerate(self._blocks)]
        index = np.concatenate(parts, axis=1) if parts else np.empty((10, 0), np.int64)
        if selection is not None:
            index = index[:, selection]
        self.block, self.row, self.passage = index[0], index[1], index[2]
        self.question_lengths, self.context_lengths = index[3], index[4]
        self.answer_first, self.answer_last, self.answer_counts = index[5], index[6], index[7]
        self._question_begin, self._context_begin = index[8], index[9]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def has_unanswerable(self) -> bool:
        """Whether some question has no answer."""
        return bool((self.answer_first < 0).any())

    @property
    def answer_lengths(self) -> Int64s:
        """Context tokens of each question's first answer, 0 where there is none, [num_questions]."""
        return np.where(self.answer_first < 0, 0, self.answer_last - self.answer_first + 1)

    def question_ids(self, question: int) -> Int32s:
        """Token ids of a question."""
        block, row = self._blocks[self.block[question]], self.row[question]
        ids: Int32s = block.question_ids[block.question_bounds[row] : block.question_bounds[row + 1]]
        return ids

    def context_ids(self, question: int) -> Int32s:
        """Token ids of a question's context."""
        block, begin, end = self._context(question)
        ids: Int32s = block.context_ids[begin:end]
        return ids

    def copy_questions(self, question: Int64s, length: Int64s, out: Int64s, places: Int64s) -> None:
        """Copy the first `length` ids of each question into the flat array `out`, to begin at `places`."""
        _copy(self._question_ids, self.block[question], self._question_begin[question], length, out, places)

    def copy_contexts(self, question: Int64s, first: Int64s, last: Int64s, out: Int64s, places: Int64s) -> None:
        """Copy the ids first..last (exclusive) of each question's context into the flat array `out`, as above."""
        _copy(self._context_ids, self.block[question], self._context_begin[question] + first, last - first, out, places)

    def offsets(self, question: int) -> tuple[Int32s, Int32s]:
        """Character offsets (starts, ends) of the tokens of a question's context."""
        block, begin, end = self._context(question)
        return block.offset_starts[begin:end], block.offset_ends[begin:end]

    def characters(self, question: Int64s, first: Int32s, last: Int32s) -> tuple[Int32s, Int32s]:
        """Character spans [begin, end) of context tokens first..last (inclusive); all arrays [num_spans]."""
        begins, ends = np.empty_like(first), np.empty_like(last)
        numbers = self.block[question]
        # The spans of a block stand together then: looking for them in each block takes long where blocks are many.
        order = np.argsort(numbers, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(numbers[order], prepend=-1)))[1:]:
            block = self._blocks[numbers[mine[0]]]
            base = block.context_bounds[self.passage[question[mine]]]
            begins[mine] = block.offset_starts[base + first[mine]]
            ends[mine] = block.offset_ends[base + last[mine]]
        return begins, ends

    def contexts(self) -> list[str]:
        """Text of every question's context, [num_questions]; questions about one passage share it."""
        texts = [block.contexts.to_pylist() for block in self._blocks]
        return [
            texts[block][passage] for block, passage in zip(self.block.tolist(), self.passage.tolist(), strict=True)
        ]

    def ids(self) -> list[str]:
        """Id of every question, [num_questions]."""
        return self._texts("id")

    def texts(self) -> list[str]:
        """Text of every question, [num_questions]."""
        return self._texts("text")

    def context(self, question: int) -> str:
        """Text of a question's context."""
        text: str = self._blocks[self.block[question]].contexts[int(self.passage[question])].as_py()
        return text

    def id(self, question: int) -> str:
        """Id of a question."""
        return self._text(question, "id")

    def text(self, question: int) -> str:
        """Text of a question."""
        return self._text(question, "text")

    def record(self, question: int) -> str:
        """Where a question was read."""
        return self._text(question, "record")

    def references(self, question: int) -> list[str]:
        """Texts of a question's reference answers; empty where the context holds none."""
        block, row = self._blocks[self.block[question]], self.row[question]
        begin, end = block.answer_bounds[row], block.answer_bounds[row + 1]
        texts: list[str] = block.answers.field("text")[begin:end].to_pylist()
        return texts

    def _context(self, question: int) -> tuple[Block, int, int]:
        block, passage = self._blocks[self.block[question]], self.passage[question]
        return block, block.context_bounds[passage], block.context_bounds[passage + 1]

    def _texts(self, field: str) -> list[str]:
        texts = [block.questions.field(field).to_pylist() for block in self._blocks]
        return [texts[block][row] for block, row in zip(self.block.tolist(), self.row.tolist(), strict=True)]

    def _text(self, question: int, field: str) -> str:
        text: str = self._blocks[self.block[question]].questions.field(field)[int(self.row[question])].as_py()
        return text


def _copy(values: Sequence[Int32s], block: Int64s, begin: Int64s, length: Int64s, out: Int64s, places: Int64s) -> None:
    """Copy `length` values from `begin` on out of each row's block; slices are faster than an index of all ids."""
    sources = zip(block.tolist(), begin.tolist(), (begin + length).tolist(), strict=True)
    targets = zip(places.tolist(), (places + length).tolist(), strict=True)
    for (number, source, source_end), (target, target_end) in zip(sources, targets, strict=True):
        out[target:target_end] = values[number][source:source_end]


def _index(number: int, block: Block) -> Int64s:
    """Rows block, row, passage, question length, context length, first and last answer token, number of answers, and
    where the ids of question and context begin in the block. A column is a question.
    """
    begin, end = int(block.passage_bounds[0]), int(block.passage_bounds[-1])
    rows = np.arange(begin, end)
    passage = np.repeat(np.arange(len(block.passage_bounds) - 1), np.diff(block.passage_bounds))
    question_lengths = np.diff(block.question_bounds)[begin:end]
    context_lengths = np.diff(block.context_bounds)[passage]
    first_answer = block.answer_bounds[:-1][begin:end]
    counts = np.diff(block.answer_bounds)[begin:end]
    answered = counts > 0
    tokens = np.full((2, len(rows)), -1, np.int64)
    for line, name in enumerate(("first_token", "last_token")):
        tokens[line, answered] = block.answers.field(name).to_numpy()[first_answer[answered]]
    begins = block.question_bounds[:-1][begin:end], block.context_bounds[:-1][passage]
    lengths = question_lengths, context_lengths
    return np.stack([np.full(len(rows), number), rows, passage, *lengths, *tokens, counts, *begins])
