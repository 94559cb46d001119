"""Batches are padded on the family's side, and every place in them counts from the left of the padded row."""

import numpy as np
import pytest
import torch
from families import FAMILIES
from passages import corpus_of

from qa_ray.config.fine_tuning import WindowConfig
from qa_ray.data.collate import Collator
from qa_ray.data.windows import make_windows
from qa_ray.schema import Answer, Passage, Question

CONTEXT = (
    "The river flows through the old town. Charles IV. laid the first stone of the bridge in 1357. "
    "The bridge is 515.8 metres long and rests on 16 arches; how many people cross it in a year is not known."
)
PASSAGES = [
    Passage(
        CONTEXT,
        (
            Question("1", "Who laid the first stone?", (Answer("Charles IV", 38),), "row 1"),
            Question("2", "Which bridge in which old town over which river?", (), "row 2"),
            Question("3", "When?", (Answer("1357", CONTEXT.index("1357")),), "row 3"),
        ),
    )
]
FAMILY = pytest.mark.parametrize("name", FAMILIES)


def collator(name, max_length=40, pad_to_multiple_of=8):
    tokenizer = FAMILIES[name].tokenizer()
    corpus, template = corpus_of(PASSAGES, tokenizer), FAMILIES[name].template()
    windows = make_windows(corpus, WindowConfig(max_length=max_length, stride=8), template)
    return Collator(corpus, windows, template, pad_to_multiple_of, max_length)


def everything(collate):
    return np.arange(len(collate.windows))


@FAMILY
def test_padding_stands_on_the_side_of_the_family_with_its_ids(name):
    collate, family = collator(name), FAMILIES[name]
    tokenizer = family.tokenizer()
    batch = collate(everything(collate))
    lengths = collate.windows.length
    width = batch.inputs["input_ids"].shape[1]
    assert lengths.min() < width
    for row, length in enumerate(lengths):
        padding = slice(0, width - length) if family.pad_left else slice(length, width)
        mask = torch.ones(width, dtype=torch.int64)
        mask[padding] = 0
        assert torch.equal(batch.inputs["attention_mask"][row], mask)
        assert (batch.inputs["input_ids"][row][padding] == tokenizer.pad_token_id).all()
        if family.uses_type_ids:
            assert (batch.inputs["token_type_ids"][row][padding] == family.pad_type_id).all()


@FAMILY
def test_model_gets_type_ids_only_where_its_tokenizer_gives_them(name):
    collate = collator(name)
    names = {"input_ids", "attention_mask", *["token_type_ids"] * FAMILIES[name].uses_type_ids}
    inputs = collate(everything(collate)).inputs
    assert set(inputs) == names
    assert {(tensor.dtype, tensor.shape) for tensor in inputs.values()} == {(torch.int64, inputs["input_ids"].shape)}


@FAMILY
def test_context_places_hold_the_ids_of_the_windows_context(name):
    collate = collator(name)
    items = everything(collate)[::-1].copy()
    batch, windows = collate(items), collate.windows
    for row, window in enumerate(items):
        wanted = collate.corpus.context_ids(windows.question[window])[windows.first[window] : windows.last[window]]
        found = batch.inputs["input_ids"][row, batch.context_begin[row] : batch.context_end[row]]
        assert found.tolist() == wanted.tolist()
        if FAMILIES[name].uses_type_ids:
            types = batch.inputs["token_type_ids"][row, batch.context_begin[row] : batch.context_end[row]]
            assert set(types.tolist()) == {0 if FAMILIES[name].context_first else 1}


@FAMILY
def test_labels_point_at_the_answers_ids_or_at_cls(name):
    collate = collator(name)
    tokenizer = FAMILIES[name].tokenizer()
    batch = collate(everything(collate))
    seen = set()
    for row, question in enumerate(collate.windows.question):
        ids = batch.inputs["input_ids"][row].tolist()
        start, end, cls = (int(places[row]) for places in (batch.start_positions, batch.end_positions, batch.cls_index))
        if start == end == cls:
            special = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
            assert ids[cls] == special or name == "gpt2"
            assert batch.inputs["attention_mask"][row, cls] == 1
        else:
            text = tokenizer.decode(ids[start : end + 1]).strip().lower()
            answer = PASSAGES[0].questions[question].answers[0].text.lower()
            assert answer.replace(" ", "") in text.replace(" ", "")
            assert len(text) <= len(answer) + 2
            seen.add(int(question))
    assert seen == {0, 2}


@FAMILY
def test_labels_move_with_the_padding_in_front(name):
    collate = collator(name)
    longest = int(np.argmax(collate.windows.length))
    labelled = np.flatnonzero(collate.windows.start_position != collate.windows.cls_index)
    short = labelled[np.argmin(collate.windows.length[labelled])]
    alone, beside = collate(np.array([short])), collate(np.array([short, longest]))
    gap = beside.inputs["input_ids"].shape[1] - alone.inputs["input_ids"].shape[1]
    shift = gap if FAMILIES[name].pad_left else 0
    for places in ("start_positions", "end_positions", "context_begin", "context_end", "cls_index"):
        assert getattr(beside, places)[0] == getattr(alone, places)[0] + shift


def test_batch_is_padded_to_its_longest_window_rounded_up():
    collate = collator("bert")
    by_length = np.argsort(collate.windows.length)
    for items in (by_length[:1], by_length[:2], by_length):
        longest = int(collate.windows.length[items].max())
        assert collate(items).inputs["input_ids"].shape == (len(items), min(-(-longest // 8) * 8, 40))
    uneven = collator("bert", max_length=37)
    assert uneven.windows.length.max() == 37
    assert uneven(everything(uneven)).inputs["input_ids"].shape[1] == 37


def test_window_reads_the_same_in_any_batch():
    collate = collator("xlnet")
    items = everything(collate)
    whole = collate(items)
    for row, item in enumerate(items):
        alone = collate(np.array([item]))
        assert torch.equal(
            alone.inputs["input_ids"][0][alone.inputs["attention_mask"][0] == 1],
            whole.inputs["input_ids"][row][whole.inputs["attention_mask"][row] == 1],
        )


def test_batch_moves_to_a_device_with_all_its_parts():
    collate = collator("bert")
    batch = collate(everything(collate))
    moved = batch.to(torch.device("meta"))
    assert {tensor.device.type for tensor in moved.inputs.values()} == {"meta"}
    for name in ("start_positions", "end_positions", "context_begin", "context_end", "cls_index"):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(batch, name).shape
    copied = batch.to(torch.device("cpu"))
    assert copied.start_positions.tolist() == batch.start_positions.tolist()
    assert copied.cls_index.tolist() == batch.cls_index.tolist()
    assert copied.context_end.tolist() == batch.context_end.tolist()
