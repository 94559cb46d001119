"""Windows and their labels are exactly those that the tokenizer's own truncation with stride and overflow gives."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from families import FAMILIES
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from passages import AS_TEXT, SAMPLE, SQUAD, characters_of, corpus_of, holds_no_piece, passages, read_file

from qa_ray.config.fine_tuning import WindowConfig
from qa_ray.data.collate import Collator
from qa_ray.data.windows import make_windows

SETTINGS = [(16, 0), (16, 7), (24, 1), (32, 16), (48, 0), (64, 40), (512, 128)]
FILES = [(f"{SAMPLE}/validation.json", setting) for setting in [(128, 64), (96, 0), (80, 40)]]
FILES += [(f"{SQUAD}/validation-v2.0.json", setting) for setting in [(384, 128), (256, 0), (160, 100)]]


def encode(family, questions, contexts, **options):
    """What the tokenizer makes of the pairs, in the family's order."""
    pair = (contexts, questions) if family.context_first else (questions, contexts)
    return family.tokenizer()(*pair, **AS_TEXT, return_token_type_ids=True, **options)


def context_places(family, encoding, row):
    owner = 0 if family.context_first else 1
    return np.flatnonzero([sequence == owner for sequence in encoding.sequence_ids(row)])


def reference_cls(family, encoding, row):
    """The first special token that is CLS, else BOS; else the first token."""
    tokenizer = family.tokenizer()
    ids, owners, mask = encoding["input_ids"][row], encoding.sequence_ids(row), encoding["attention_mask"][row]
    for wanted in (tokenizer.cls_token_id, tokenizer.bos_token_id):
        for place, (token, owner) in enumerate(zip(ids, owners, strict=True)):
            if token == wanted and owner is None and mask[place]:
                return place
    return mask.index(1)


def touching(offsets, begin, end):
    """Tokens that share a character with [begin, end)."""
    return [place for place, (start, stop) in enumerate(offsets) if start < end and stop > begin]


def usual_label(offsets, begin, end):
    """The label loop of the usual scripts, in tokens of the window's context; None stands for CLS."""
    if not (offsets[0][0] <= begin and offsets[-1][1] >= end):
        return None
    first, last = 0, len(offsets) - 1
    while first < len(offsets) and offsets[first][0] <= begin:
        first += 1
    while last >= 0 and offsets[last][1] >= end:
        last -= 1
    return first - 1, last + 1


def is_plain(offsets, begin, end):
    """Whether tokens near the answer share no character, and its first and last character are part of tokens."""
    near = touching(offsets, begin - 8, end + 8)
    apart = all(offsets[left][1] <= offsets[right][0] for left, right in pairwise(near))
    solid = all(offsets[place][0] < offsets[place][1] for place in near)
    return apart and solid and touching(offsets, begin, begin + 1) and touching(offsets, end - 1, end)


def check_label(windows, window, offsets, whole_offsets, answer):
    """Compare a window's label with the answer's characters.

    Where a symbol is split into several byte tokens, these share its offset: the label then covers all of them, while
    the usual loop would put the start behind the end.
    """
    label = windows.start_position[window], windows.end_position[window]
    context_begin, cls_index = windows.context_begin[window], windows.cls_index[window]
    if answer is None:
        assert label == (cls_index, cls_index)
        return
    text = answer.text.lstrip()
    begin = answer.answer_start + len(answer.text) - len(text)
    end = begin + len(text.rstrip())
    inside = touching(offsets, begin, end)
    if len(inside) == len(touching(whole_offsets, begin, end)):
        assert label == (context_begin + inside[0], context_begin + inside[-1])
    else:
        assert label == (cls_index, cls_index)
    if is_plain(whole_offsets, begin, end):
        usual = usual_label(offsets, begin, end)
        assert label == (tuple(context_begin + place for place in usual) if usual else (cls_index, cls_index))


def check_against_tokenizer(family, given_passages, max_length, stride):
    """Hold every window of every question that the tokenizer can cut to the tokenizer's own."""
    corpus, template = corpus_of(given_passages, family.tokenizer()), family.template()
    windows = make_windows(corpus, WindowConfig(max_length=max_length, stride=stride), template)
    if not len(corpus):
        assert len(windows) == 0
        return 0
    batch = Collator(corpus, windows, template, max_length, max_length)(np.arange(len(windows)))
    asked = {
        (question.record, question.id): (question, passage.context)
        for passage in given_passages
        for question in passage.questions
    }
    pairs = [asked[corpus.record(number), corpus.id(number)] for number in range(len(corpus))]
    whole = encode(family, [question.text for question, _ in pairs], [context for _, context in pairs])
    places = [context_places(family, whole, number) for number in range(len(pairs))]
    lengths = [len(ids) for ids in whole["input_ids"]]
    # The tokenizer panics where the question leaves the context no more room than the stride; sooner than that there
    # would be a window for each few tokens.
    least_step = min(max_length // 8, (max_length - template.num_special - stride) // 2)
    legal = [
        number
        for number in range(len(pairs))
        if lengths[number] <= max_length or max_length - (lengths[number] - len(places[number])) - stride >= least_step
    ]
    assert set(windows.cut_questions) == set(range(len(pairs))) - set(legal)
    if not legal:
        return 0
    reference = encode(
        family,
        [pairs[number][0].text for number in legal],
        [pairs[number][1] for number in legal],
        truncation="only_first" if family.context_first else "only_second",
        max_length=max_length,
        stride=stride,
        padding="max_length",
        return_overflowing_tokens=True,
    )
    ours = np.flatnonzero(np.isin(windows.question, legal))
    assert windows.question[ours].tolist() == [legal[row] for row in reference["overflow_to_sample_mapping"]]
    assert batch.inputs["input_ids"][ours].tolist() == reference["input_ids"]
    assert batch.inputs["attention_mask"][ours].tolist() == reference["attention_mask"]
    assert ("token_type_ids" in batch.inputs) == family.uses_type_ids
    typed = Collator(corpus, windows, replace(template, uses_type_ids=True), max_length, max_length)(ours)
    assert typed.inputs["token_type_ids"].tolist() == reference["token_type_ids"]
    assert batch.cls_index[ours].tolist() == [reference_cls(family, reference, row) for row in range(len(ours))]
    for row, window in enumerate(ours):
        number = windows.question[window]
        question, context = pairs[number]
        within = context_places(family, reference, row)
        assert within.tolist() == list(range(batch.context_begin[window], batch.context_end[window]))
        starts, ends = (side[windows.first[window] : windows.last[window]] for side in corpus.offsets(number))
        offsets = list(zip(starts.tolist(), ends.tolist(), strict=True))
        whole_offsets = characters_of(family, context)
        assert offsets == whole_offsets[windows.first[window] : windows.last[window]]
        check_label(windows, window, offsets, whole_offsets, question.answers[0] if question.answers else None)
    return len(ours)


FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@FAMILY
@settings(max_examples=40)
@given(data=st.data(), setting=st.sampled_from(SETTINGS))
def test_random_texts_are_cut_and_labelled_as_the_tokenizer_does(family, data, setting):
    passage = data.draw(passages(marks=not family.is_unigram))
    assume(holds_no_piece(family, passage))
    check_against_tokenizer(family, [passage], *setting)


@FAMILY
@pytest.mark.parametrize(("file", "setting"), FILES, ids=[f"{Path(file).stem}-{setting}" for file, setting in FILES])
def test_files_are_cut_and_labelled_as_the_tokenizer_does(family, file, setting):
    longest_first = sorted(read_file(file), key=lambda passage: -len(passage.context))
    chosen = longest_first[:: len(longest_first) // 8]
    assert check_against_tokenizer(family, chosen, *setting) > sum(len(passage.questions) for passage in chosen)
