"""Contexts that stand in both splits are told, with the questions that they make easier."""

import numpy as np
from families import FAMILIES
from passages import corpus_of

from qa_ray.data.pipeline import Split
from qa_ray.runs.preparation import overlap_note
from qa_ray.schema import Passage, Question


def split(*keys):
    return Split(
        "dev.json",
        (),
        np.arange(len(keys)),
        (),
        has_unanswerable=False,
        digest="",
        token_digest="",
        context_keys=np.array(keys, np.uint64),
    )


def note(train, validation):
    passages = [Passage(f"c{number}", (Question(f"{number}", "q", (), f"line {number}"),)) for number in range(9)]
    corpus = corpus_of(passages[: len(validation)], FAMILIES["bert"].tokenizer())
    return overlap_note(split(*train), split(*validation), corpus.record)


def test_contexts_of_one_split_only_are_not_told():
    assert note([1, 1, 2], [3, 4]) is None


def test_contexts_of_both_splits_are_counted_and_named():
    assert note([1, 2], [3, 2, 2]) == (
        "2 of 3 questions are about 1 context of the training data: scores flatter. First at line 1; "
        "data.validation_share splits by context"
    )


def test_the_first_of_many_are_named_in_their_order():
    told = note([9, 8, 7, 6], [6, 6, 1, 9, 7, 8])
    assert told.startswith("5 of 6 questions are about 4 contexts of the training data")
    assert "First at line 0, line 3, line 4;" in told
