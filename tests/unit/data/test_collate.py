"""Batches are padded on the family's side, and every place in them counts from the left of the padded row."""

import numpy as np
import pytest
import torch
from families import FAMILIES
from hypothesis import given
from hypothesis import strategies as st
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


def joined(collate, item):
    """Ids and type ids of a window, by the template alone."""
    windows, template = collate.windows, collate.template
    question = windows.question[item]
    asked = collate.corpus.question_ids(question)[: windows.question_length[item]].tolist()
    context = collate.corpus.context_ids(question)[windows.first[item] : windows.last[item]].tolist()
    first, second = (context, asked) if template.context_first else (asked, context)
    ids = [*template.prefix.ids, *first, *template.middle.ids, *second, *template.suffix.ids]
    types = [template.first_type_id] * len(first), [template.second_type_id] * len(second)
    return ids, [
        *template.prefix.type_ids,
        *types[0],
        *template.middle.type_ids,
        *types[1],
        *template.suffix.type_ids,
    ]


def plainly(collate, items):
    """What a batch holds, window by window."""
    windows, template, width = collate.windows, collate.template, collate.shape(items)[1]
    inputs = {"input_ids": [], "attention_mask": [], "token_type_ids": []}
    places = {name: [] for name in ("start_positions", "end_positions", "context_begin", "context_end", "cls_index")}
    for item in items:
        ids, types = joined(collate, item)
        assert len(ids) == windows.length[item]
        padding = width - len(ids)
        margin = padding * template.pad_left
        for name, values, pad in zip(
            inputs, (ids, [1] * len(ids), types), (template.pad_id, 0, template.pad_type_id), strict=True
        ):
            inputs[name].append([pad] * margin + values + [pad] * (padding - margin))
        begin = windows.context_begin[item]
        end = begin + windows.last[item] - windows.first[item]
        labels = windows.start_position[item], windows.end_position[item]
        for name, place in zip(places, (*labels, begin, end, windows.cls_index[item]), strict=True):
            places[name].append(place + margin)
    if not template.uses_type_ids:
        del inputs["token_type_ids"]
    return inputs, places


@FAMILY
@given(data=st.data())
def test_batch_is_what_a_loop_over_its_windows_makes(name, data):
    tokenizer, template = FAMILIES[name].tokenizer(), FAMILIES[name].template()
    asked = st.lists(st.sampled_from(["when", "who", "river", "bridge", "of 1357", "1,5 ?"]), min_size=1, max_size=40)
    context = st.lists(st.sampled_from(["The", "river", "bridge", "Charles laid", "515.8"]), max_size=60)
    contexts = data.draw(st.lists(context, min_size=1, max_size=4), "contexts")
    passages = [
        Passage(" ".join(["Old", *words]), (Question(str(n), " ".join(data.draw(asked)), (), f"row {n}"),))
        for n, words in enumerate(contexts)
    ]
    corpus = corpus_of(passages, tokenizer, block=data.draw(st.integers(1, 4), "block"))
    max_length = data.draw(st.integers(16, 48), "max_length")
    windows = make_windows(corpus, WindowConfig(max_length=max_length, stride=data.draw(st.integers(0, 4))), template)
    multiple = data.draw(st.sampled_from([1, 8, 16]), "multiple")
    collate = Collator(corpus, windows, template, multiple, max_length)
    chosen = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=12), "items")
    batch = collate(np.array(chosen))
    inputs, places = plainly(collate, np.array(chosen))
    assert {name: tensor.tolist() for name, tensor in batch.inputs.items()} == inputs
    assert {name: getattr(batch, name).tolist() for name in places} == places
    assert batch.padded == (windows.length[chosen].min() < collate.shape(np.array(chosen))[1])


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
    assert moved.padded == batch.padded
    assert {tensor.device.type for tensor in moved.inputs.values()} == {"meta"}
    for name in ("start_positions", "end_positions", "context_begin", "context_end", "cls_index"):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(batch, name).shape
    copied = batch.to(torch.device("cpu"))
    assert copied.start_positions.tolist() == batch.start_positions.tolist()
    assert copied.cls_index.tolist() == batch.cls_index.tolist()
    assert copied.context_end.tolist() == batch.context_end.tolist()
