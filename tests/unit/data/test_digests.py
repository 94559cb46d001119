"""A digest changes with whatever a question says, or a tokenizer makes of it, and with nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from families import FAMILIES

from qa_ray.data.corpus import view
from qa_ray.data.digests import text_digests, token_digests
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.schema import TOKENIZED, Answer, Passage, Question

CONTEXT = "the river and the bridge"
FIRST = Question("1", "which river?", (Answer("the", 0),), "a.jsonl line 1")
SECOND = Question("2", "which bridge?", (), "a.jsonl line 2")
OTHER = Passage("a town", (Question("3", "which town?", (Answer("town", 2), Answer("a town", 0)), "a.jsonl line 3"),))
PASSAGES = [Passage(CONTEXT, (FIRST, SECOND)), OTHER]


def table(passages, family="bert"):
    return tokenize(passages, [], parse_tokenizer(FAMILIES[family].tokenizer().backend_tokenizer.to_str()))


def texts_of(passages, family="bert"):
    return [digest.tobytes() for digest in text_digests(view(table(passages, family)))]


def tokens_of(passages, family="bert"):
    return [digest.tobytes() for digest in token_digests(view(table(passages, family)))]


def with_first(**changes):
    return [Passage(CONTEXT, (replace(FIRST, **changes), SECOND)), OTHER]


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "4"},
        {"text": "which bridge?"},
        {"answers": (Answer("the", 14),)},
        {"answers": (Answer("river", 4),)},
        {"answers": (Answer("the", 0), Answer("the", 14))},
        {"answers": ()},
    ],
    ids=["id", "question of as many words", "the same words elsewhere", "other words", "one more", "none"],
)
def test_whatever_a_question_says_changes_its_digest_and_no_other(changes):
    before, after = texts_of(PASSAGES), texts_of(with_first(**changes))
    assert before[0] != after[0]
    assert before[1:] == after[1:]


def test_other_words_of_a_context_change_all_its_questions():
    before = texts_of(PASSAGES)
    after = texts_of([replace(PASSAGES[0], context="the river and the street"), OTHER])
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]


def test_where_a_question_was_read_and_beside_which_others_changes_nothing():
    apart = [Passage(CONTEXT, (SECOND,)), OTHER, Passage(CONTEXT, (replace(FIRST, record="b.csv row 7"),))]
    first, second, third = texts_of(PASSAGES)
    assert texts_of(apart) == [second, third, first]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"id": "a\0b", "text": "c"}, {"id": "a", "text": "b\0c"}),
        ({"id": "a", "text": "b\0the", "answers": ()}, {"id": "a", "text": "b", "answers": (Answer("the", 0),)}),
        ({"id": 'a", "b', "text": "c"}, {"id": "a", "text": 'b", "c'}),
    ],
    ids=["id and question", "question and answer", "quotes"],
)
def test_no_text_is_taken_for_the_end_of_another(one, other):
    assert texts_of(with_first(**one))[0] != texts_of(with_first(**other))[0]


def test_tokenizer_changes_the_tokens_alone():
    assert texts_of(PASSAGES, "roberta") == texts_of(PASSAGES)
    assert not set(tokens_of(PASSAGES, "roberta")) & set(tokens_of(PASSAGES))


def test_tokens_are_those_of_the_question_and_of_its_context():
    first, second, third = tokens_of(PASSAGES)
    assert tokens_of(with_first(id="4", answers=())) == [first, second, third]
    assert [one == first for one in tokens_of(with_first(text="which town?"))] == [False, False, False]
    longer = tokens_of([replace(PASSAGES[0], context=CONTEXT + "  "), OTHER])
    assert longer == [first, second, third]
    moved = tokens_of([replace(PASSAGES[0], context=" " + CONTEXT), OTHER])
    assert [one == other for one, other in zip(moved, [first, second, third], strict=True)] == [False, False, True]


@pytest.mark.parametrize("digests", [text_digests, token_digests])
def test_part_of_a_table_has_the_digests_of_its_questions(digests):
    whole = table(PASSAGES)
    np.testing.assert_array_equal(digests(view(whole.slice(1))), digests(view(whole))[2:])
    assert digests(view(TOKENIZED.empty_table())).shape == (0, 32)
