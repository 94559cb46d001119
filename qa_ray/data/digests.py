"""Digests of questions: of what they say, and of what a tokenizer made of it.

The two are kept apart, so that it can be told which of them has changed.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from qa_ray.data.corpus import Block
from qa_ray.errors import DataError
from qa_ray.schema import Bools, Int64s, UInt64s

Digests = npt.NDArray[np.uint8]
"""SHA-256 of each question, [num_questions, 32]."""


def text_digests(block: Block) -> Digests:
    """Of each question's id, text and context, and of its answers with their starts; the tokenizer changes nothing."""
    begin, end = block.passage_bounds[0], block.passage_bounds[-1]
    ids, texts = (block.questions.field(name)[begin:end].to_pylist() for name in ("id", "text"))
    answers = list(zip(*(block.answers.field(name).to_pylist() for name in ("text", "answer_start")), strict=True))
    bounds = pairwise(block.answer_bounds[begin : end + 1].tolist())
    # As JSON: whatever stands in a text, it is never taken for its end.
    said = (
        json.dumps([identifier, text, answers[first:last]]).encode()
        for identifier, text, (first, last) in zip(ids, texts, bounds, strict=True)
    )
    return _with_context(block, [context.encode() for context in block.contexts.to_pylist()], said)


def token_digests(block: Block) -> Digests:
    """Of each question's token ids, and of its context's token ids with their character offsets."""
    columns = block.context_ids, block.offset_starts, block.offset_ends
    contexts = [
        b"".join(column[first:last].tobytes() for column in columns)
        for first, last in pairwise(block.context_bounds.tolist())
    ]
    bounds = block.question_bounds[block.passage_bounds[0] : block.passage_bounds[-1] + 1].tolist()
    asked = (block.question_ids[first:last].tobytes() for first, last in pairwise(bounds))
    return _with_context(block, contexts, asked)


def context_keys(block: Block) -> UInt64s:
    """Of each question's context, equal for contexts that differ in white space only, [num_questions]."""
    contexts = (" ".join(context.split()).encode() for context in block.contexts.to_pylist())
    keys = [int.from_bytes(hashlib.sha256(context).digest()[:8], "big") for context in contexts]
    return np.repeat(np.array(keys, np.uint64), np.diff(block.passage_bounds))


def shared_contexts(keys: UInt64s, others: UInt64s) -> Int64s:
    """Questions with these `context_keys` whose context stands in another split, too."""
    found: Int64s = np.flatnonzero(np.isin(keys, others))
    return found


def held_out(keys: UInt64s, share: float) -> Bools:
    """Which questions are held out: all about a share of the contexts, at least one, whatever their order.

    Args:
        keys: of each question's context, see `context_keys`.
        share: of the contexts; those are taken whose keys are the least.

    Raises:
        DataError: all questions are about one context.
    """
    contexts = np.unique(keys)
    if len(contexts) < 2:
        raise DataError(f"all {len(keys)} questions are about one context, of which no share can be taken")
    number = min(max(round(share * len(contexts)), 1), len(contexts) - 1)
    chosen: Bools = keys <= contexts[number - 1]
    return chosen


def _with_context(block: Block, contexts: Sequence[bytes], questions: Iterable[bytes]) -> Digests:
    """Digest each question with the digest of its context, which is made once."""
    of_contexts = [hashlib.sha256(context).digest() for context in contexts]
    passages = np.repeat(np.arange(len(contexts)), np.diff(block.passage_bounds)).tolist()
    digests = [
        hashlib.sha256(of_contexts[passage] + question).digest()
        for passage, question in zip(passages, questions, strict=True)
    ]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
