"""Text to token ids and character offsets, each distinct text once.

Questions and contexts are encoded apart and without special tokens, straight through the Rust tokenizer: joining them,
cutting windows and padding are integer arithmetic that comes later (`windows`, `collate`).
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Encoding, Regex, Tokenizer, pre_tokenizers

from qa_ray.data.characters import token_characters
from qa_ray.schema import TOKENIZED, Answer, Int32s, Passage, Problem, Question

_TokenQuestion = tuple[Question, Sequence[int], list[tuple[int, int]]]
"""A question, its token ids, and the first and last context token of each of its answers."""
_TEXTS = ("id", "text", "record")


@lru_cache(maxsize=4)
def parse_tokenizer(definition: str) -> Tokenizer:
    """Build a tokenizer from the text of its tokenizer.json, for plain texts; kept per process.

    It neither truncates nor pads; special tokens that stand in a text are text; no offset is trimmed.
    """
    content = json.loads(definition)
    _set_untrimmed(content.get("post_processor"))
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    if content["model"]["type"] == "Unigram":
        _part_special_tokens(tokenizer)
    return tokenizer


def _part_special_tokens(tokenizer: Tokenizer) -> None:
    """Part special tokens that stand in a text behind their first character: a unigram model has them as pieces."""
    tokens = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    pattern = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in tokens if len(token) > 1)
    if pattern:
        parting = pre_tokenizers.Split(Regex(pattern), "merged_with_previous")
        known = [tokenizer.pre_tokenizer] if tokenizer.pre_tokenizer else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*known, parting])


def _set_untrimmed(processor: dict[str, Any] | None) -> None:
    """Keep byte-level tokenizers from trimming: they take a letter for the space that they added before a word."""
    for part in (processor or {}).get("processors", [processor]):
        if part and "trim_offsets" in part:
            part["trim_offsets"] = False


def tokenize(passages: Sequence[Passage], problems: Sequence[Problem], tokenizer: Tokenizer) -> pa.Table:
    """Tokenise passages into a table with schema `TOKENIZED`.

    Questions whose answer, or whose context, holds no token are left out and join `problems`, which stand in the
    table's last row.
    """
    texts = [passage.context for passage in passages]
    encodings = _encode(texts, tokenizer)
    contexts = _Contexts.of(texts, [encodings[text] for text in texts])
    asked = _encode((question.text for passage in passages for question in passage.questions), tokenizer)
    rows: list[list[_TokenQuestion]] = []
    problems = list(problems)
    for passage, (starts, ends) in zip(passages, contexts.offsets(), strict=True):
        kept: list[_TokenQuestion] = []
        for question in passage.questions:
            answers = [answer_tokens(answer, starts, ends) for answer in question.answers]
            problem = _without_tokens(question, passage.context, answers, len(starts))
            if problem:
                problems.append(problem)
            else:
                kept.append((question, asked[question.text].ids, answers))
        rows.append(kept)
    columns = [
        pa.array([*texts, ""]),
        *contexts.columns(),
        _question_array([*rows, []]),
        pa.array([*([[]] * len(texts)), [_as_dict(problem) for problem in problems]]),
    ]
    return pa.table([column.cast(field.type) for column, field in zip(columns, TOKENIZED, strict=True)], TOKENIZED)


def _encode(texts: Iterable[str], tokenizer: Tokenizer) -> dict[str, Encoding]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, tokenizer.encode_batch(distinct, add_special_tokens=False), strict=True))


@dataclass(frozen=True, slots=True)
class _Contexts:
    """The tokens of all contexts in one row: those of context i stand at `bounds[i] : bounds[i + 1]`."""

    bounds: Int32s
    ids: Int32s
    starts: Int32s
    ends: Int32s

    @classmethod
    def of(cls, texts: Sequence[str], encodings: Sequence[Encoding]) -> "_Contexts":
        bounds = _bounds(encodings)
        ids = _joined((encoding.ids for encoding in encodings), bounds[-1])
        pairs = chain.from_iterable(encoding.offsets for encoding in encodings)
        starts, ends = _joined(pairs, 2 * bounds[-1]).reshape(-1, 2).T
        return cls(bounds, ids, *token_characters(texts, bounds, starts, ends))

    def offsets(self) -> Iterator[tuple[list[int], list[int]]]:
        """Yield each context's characters by token (starts, ends)."""
        starts, ends = self.starts.tolist(), self.ends.tolist()
        for begin, end in pairwise(self.bounds.tolist()):
            yield starts[begin:end], ends[begin:end]

    def columns(self) -> list[pa.ListArray]:
        """Token ids, starts and ends, with an empty row at the end."""
        bounds = np.append(self.bounds, self.bounds[-1])
        return [pa.ListArray.from_arrays(bounds, values) for values in (self.ids, self.starts, self.ends)]


def answer_tokens(answer: Answer, starts: Sequence[int], ends: Sequence[int]) -> tuple[int, int]:
    """First and last context token that an answer touches; first > last where there is none.

    `starts` and `ends` are the characters of the context's tokens, each in ascending order. Tokens that share a
    character (bytes of one symbol) all count as touched. Space around an answer is no part of it.
    """
    space = len(answer.text) - len(answer.text.lstrip())
    first = bisect_right(ends, answer.answer_start + space)
    return first, bisect_left(starts, answer.answer_start + len(answer.text.rstrip())) - 1


def _without_tokens(
    question: Question, context: str, answers: Sequence[tuple[int, int]], num_tokens: int
) -> Problem | None:
    if num_tokens == 0:
        return Problem(question.record, "context", repr(context[:80]), "the tokenizer makes no token of it")
    for answer, (first, last) in zip(question.answers, answers, strict=True):
        if first > last:
            return Problem(question.record, "answers.text", repr(answer.text), "the tokenizer makes no token of it")
    return None


def _bounds(values: Sequence[Sized]) -> Int32s:
    return np.fromiter(accumulate(map(len, values), initial=0), np.int32, len(values) + 1)


def _joined(values: Iterable[Iterable[int]], length: int) -> Int32s:
    return np.fromiter(chain.from_iterable(values), np.int32, length)


def _question_array(groups: Sequence[Sequence[_TokenQuestion]]) -> pa.ListArray:
    rows = list(chain.from_iterable(groups))
    answers = list(chain.from_iterable(answers for _, _, answers in rows))
    answer_struct = pa.StructArray.from_arrays(
        [
            pa.array([answer.text for question, _, _ in rows for answer in question.answers], pa.string()),
            pa.array([answer.answer_start for question, _, _ in rows for answer in question.answers], pa.int32()),
            pa.array([first for first, _ in answers], pa.int32()),
            pa.array([last for _, last in answers], pa.int32()),
        ],
        ["text", "answer_start", "first_token", "last_token"],
    )
    ids = [ids for _, ids, _ in rows]
    id_bounds = _bounds(ids)
    columns: list[pa.Array] = [
        *(pa.array([getattr(question, name) for question, _, _ in rows], pa.string()) for name in _TEXTS),
        pa.ListArray.from_arrays(id_bounds, _joined(ids, id_bounds[-1])),
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
