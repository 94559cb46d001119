"""Special tokens that stand in a question or a context, as in HTML or code, are text like any other."""

import dataclasses

import pytest
from families import FAMILIES
from passages import corpus_of

from qa_ray.answers import QuestionAnswerer
from qa_ray.schema import Passage, Question

TEXT = "a {0} b{0} c"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_no_text_makes_a_special_token(family):
    special = family.tokenizer().all_special_tokens
    passages = [Passage(TEXT.format(token), (Question(token, TEXT.format(token), (), token),)) for token in special]
    corpus = corpus_of(passages, family.tokenizer())
    unknown = {family.tokenizer().unk_token_id}
    forbidden = set(family.tokenizer().all_special_ids) - unknown
    assert len(corpus) == len(special)
    for number in range(len(corpus)):
        assert not forbidden & {*corpus.context_ids(number).tolist(), *corpus.question_ids(number).tolist()}


def test_longformer_which_counts_separators_answers_about_texts_that_hold_them(tmp_path):
    roberta = FAMILIES["roberta"]
    settings = roberta.settings | {"attention_window": [8, 8]}
    dataclasses.replace(roberta, name="longformer", config_name="LongformerConfig", settings=settings).save(tmp_path)
    answerer = QuestionAnswerer.from_pretrained(str(tmp_path), device="cpu")
    contexts = ["The river </s> flows <mask> through <s>the</s> town.", "the town"]
    together = answerer(["Which </s> river?", "Which town?"], contexts)
    for answer, context in zip(together, contexts, strict=True):
        assert answer["answer"] == context[answer["start"] : answer["end"]] != ""
