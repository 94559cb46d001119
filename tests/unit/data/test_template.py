"""The layout that is learnt from a tokenizer is the one in which it joins question and context."""

import copy
from dataclasses import replace

import pytest
from families import FAMILIES
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from qa_ray.data.template import Segment, Template
from qa_ray.errors import ModelError
from qa_ray.model.loading import learn_template

# Segments as tokens; type ids of the whole pair as one digit a token.
LAYOUTS = {
    "bert": ("[CLS]", "[SEP]", "[SEP]", "00011"),
    "bert-cased": ("[CLS]", "[SEP]", "[SEP]", "00011"),
    "distilbert": ("[CLS]", "[SEP]", "[SEP]", "00011"),
    "roberta": ("<s>", "</s> </s>", "</s>", "000000"),
    "roberta-untrimmed": ("<s>", "</s> </s>", "</s>", "000000"),
    "roberta-prefix": ("<s>", "</s> </s>", "</s>", "000000"),
    "roberta-prefix-untrimmed": ("<s>", "</s> </s>", "</s>", "000000"),
    "deberta": ("[CLS]", "[SEP]", "[SEP]", "00011"),
    "xlnet": ("", "<sep>", "<sep> <cls>", "00112"),
    "modernbert": ("[CLS]", "[SEP]", "[SEP]", "00011"),
    "gpt2": ("", "", "", "01"),
    "llama": ("<s>", "<s>", "", "0011"),
}


def plain_tokenizer(pair, tokens=("a", "C", "S"), lowercase=False):
    """A word-level tokenizer that joins pairs as `pair` says."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(token, vocabulary[token]) for token in tokens[1:]]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair=pair, special_tokens=special)
    return tokenizer


def learn(tokenizer, *no_answer_ids, pad_left=False):
    return Template.learn(
        tokenizer, pad_left=pad_left, pad_id=9, pad_type_id=0, uses_type_ids=False, no_answer_ids=no_answer_ids
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_layout_of_a_family_is_learnt(name):
    family, tokenizer = FAMILIES[name], FAMILIES[name].tokenizer()
    template = FAMILIES[name].template()
    segments = (template.prefix, template.middle, template.suffix)
    *tokens, types = LAYOUTS[name]
    assert [" ".join(tokenizer.convert_ids_to_tokens(segment.ids)) for segment in segments] == tokens
    prefix, middle, suffix = (segment.type_ids for segment in segments)
    learnt = (*prefix, template.first_type_id, *middle, template.second_type_id, *suffix)
    assert "".join(map(str, learnt)) == types
    assert template.num_special == len(types) - 2
    assert template.context_first == family.context_first
    assert (template.pad_left, template.pad_type_id) == (family.pad_left, family.pad_type_id)
    assert template.pad_id == tokenizer.convert_tokens_to_ids(family.special_tokens["pad_token"])
    assert template.uses_type_ids == family.uses_type_ids


@pytest.mark.parametrize("name", FAMILIES)
def test_truncation_and_padding_left_on_by_an_earlier_call_change_nothing(name):
    tokenizer = FAMILIES[name].tokenizer()
    expected = FAMILIES[name].template()
    tokenizer("a", "b a b a b", truncation=True, max_length=4, padding="max_length")
    assert FAMILIES[name].template() == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_places_are_those_of_an_encoded_pair(name):
    family, tokenizer = FAMILIES[name], FAMILIES[name].tokenizer()
    template = FAMILIES[name].template()
    question, context = "Who built the bridge?", "Charles IV. laid the first stone."
    encoding = tokenizer(*((context, question) if family.context_first else (question, context)))
    owners = encoding.sequence_ids()
    num_question = owners.count(1 if family.context_first else 0)
    assert template.context_begin(num_question) == owners.index(0 if family.context_first else 1)
    assert template.room(len(owners), num_question) == owners.count(0 if family.context_first else 1)
    cls_id = next((i for i in (tokenizer.cls_token_id, tokenizer.bos_token_id) if i in encoding["input_ids"]), None)
    place = 0 if cls_id is None else encoding["input_ids"].index(cls_id)
    assert template.cls_index(len(owners)) == place


def typed_tokenizer(family):
    tokenizer = copy.deepcopy(FAMILIES[family].tokenizer())
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


@pytest.mark.parametrize(
    ("of_tokenizer", "of_model", "changes", "sent"),
    [
        ("bert", "bert", {}, True),
        ("bert", "bert", {"type_vocab_size": 3}, True),
        ("bert", "roberta", {}, False),
        ("roberta", "roberta", {}, False),
        ("bert", "roberta", {"type_vocab_size": 2}, True),
        ("distilbert", "distilbert", {}, False),
        ("modernbert", "modernbert", {}, False),
        ("llama", "llama", {}, False),
        ("gpt2", "gpt2", {}, True),
        ("deberta", "deberta", {}, True),
        ("xlnet", "xlnet", {}, True),
    ],
)
def test_type_ids_go_only_to_a_model_that_tells_types_apart(of_tokenizer, of_model, changes, sent):
    settings = FAMILIES[of_model].config()
    settings.update(changes)
    assert learn_template(typed_tokenizer(of_tokenizer), settings).uses_type_ids == sent


def test_room_is_negative_for_a_question_that_fills_the_window():
    assert learn(plain_tokenizer("C $A S $B S")).room(8, 9) == -4


@pytest.mark.parametrize(
    ("pair", "no_answer_ids", "offset", "context_first"),
    [
        ("C $A S $B S", (1,), 0, False),
        ("S $A $B C", (1,), -1, True),
        ("$A $B C S", (1,), -2, True),
        ("S C $A $B", (1,), 1, False),
        ("S $A $B C", (1, 2), -1, True),
        ("S $A $B", (1, 2), 0, False),
        ("S $A C $B", (1,), 0, False),
        ("$A $B", (), 0, False),
    ],
    ids=["cls-first", "cls-last", "cls-before-last", "cls-second", "cls-before-bos", "bos", "cls-amid", "none"],
)
def test_no_answer_label_stands_at_cls_else_at_bos_else_at_the_first_token(pair, no_answer_ids, offset, context_first):
    template = learn(plain_tokenizer(pair), *no_answer_ids)
    assert (template.cls_offset, template.context_first) == (offset, context_first)
    assert template.cls_index(10) == offset % 10


def test_context_stands_second_however_a_decoder_is_padded():
    template = learn(plain_tokenizer("C $A $B"), 1, pad_left=True)
    assert not template.context_first
    assert template.context_begin(3) == 4


def test_type_ids_of_every_token_are_learnt():
    template = learn(plain_tokenizer("C:3 $A:1 S:4 $B:2 S:5"), 1)
    assert (template.prefix, template.middle, template.suffix) == (
        Segment((1,), (3,)),
        Segment((2,), (4,)),
        Segment((2,), (5,)),
    )
    assert (template.first_type_id, template.second_type_id) == (1, 2)


def test_tokenizer_that_makes_no_token_of_a_word_is_refused():
    tokenizer = plain_tokenizer("C $A S $B S")
    tokenizer.normalizer = normalizers.Replace("a", "")
    with pytest.raises(ModelError, match="gives no tokens for a pair of plain words"):
        learn(tokenizer, 1)


def test_tokenizer_that_puts_the_second_text_first_is_refused():
    with pytest.raises(ModelError, match="mixes the tokens of question and context"):
        learn(plain_tokenizer("C $B S $A S"), 1)


def test_room_and_places_follow_from_the_segments():
    template = learn(plain_tokenizer("C $A S $B S"), 1)
    swapped = replace(template, context_first=True)
    assert (template.context_begin(5), swapped.context_begin(5)) == (7, 1)
    assert template.room(20, 5) == swapped.room(20, 5) == 12
