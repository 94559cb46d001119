"""Tokens that were added to a tokenizer get embeddings if that is asked for, and keep them."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from families import FAMILIES
from small_runs import make_collator, make_run, tiny_config
from transformers import AutoConfig, AutoModelForQuestionAnswering, set_seed

from qa_ray.answers import QuestionAnswerer
from qa_ray.errors import ModelError
from qa_ray.model.folder import open_model, save_model
from qa_ray.model.loading import check_model, load_model, load_tokenizer
from qa_ray.schema import Answer, Passage, Question

MARKED = "<here> Rome is the town where Ada went <here>"
PASSAGES = [Passage(MARKED, (Question("q", "Where is Ada <here> ?", (Answer("Rome", 7),), "made"),))]


@pytest.fixture
def marked(saved, tmp_path):
    """Folder of a tiny model of a family whose tokenizer has a token more than the model knows."""

    def make(family):
        folder = shutil.copytree(saved(family), tmp_path / family)
        tokenizer = load_tokenizer(tiny_config(folder).model)
        assert tokenizer.add_tokens(["<here>"]) == 1
        tokenizer.save_pretrained(folder)
        return folder

    return make


def config_of(folder, **model):
    return tiny_config(
        folder, model={"resize_embeddings": True} | model, train={"max_steps": 2}, window={"max_length": 64}
    )


def rows(model):
    return model.get_input_embeddings().weight.detach().clone()


def test_option_that_resizes_is_named(marked):
    config = config_of(marked("bert"), resize_embeddings=False)
    tokenizer = load_tokenizer(config.model)
    with pytest.raises(ModelError, match=r"do not belong together\. If you added .* model\.resize_embeddings=true"):
        check_model(config.model, tokenizer)
    check_model(replace(config.model, resize_embeddings=True), tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_added_token_is_trained_saved_and_opened_without_any_option(marked, family, tmp_path):
    config = config_of(marked(family))
    tokenizer, num_known = load_tokenizer(config.model), len(FAMILIES[family].tokenizer())
    assert len(tokenizer) == num_known + 1
    known = rows(AutoModelForQuestionAnswering.from_pretrained(config.model.name))
    collator = make_collator(config, PASSAGES)
    assert (collator(collator.windows.question[:1]).inputs["input_ids"] == num_known).sum() == 3
    run = make_run(config, PASSAGES, collator=collator)
    before = rows(run.model)
    assert torch.equal(before[:-1], known)
    assert before[-1].any()
    run.train()
    assert not torch.equal(rows(run.model)[-1], before[-1])

    save_model(tmp_path / "trained", run.model, tokenizer, config, None)
    assert AutoConfig.from_pretrained(tmp_path / "trained").vocab_size == num_known + 1
    opened = open_model(str(tmp_path / "trained"))
    assert torch.equal(rows(opened.model), rows(run.model))
    assert QuestionAnswerer(opened, device="cpu")(question="Where <here> ?", context=MARKED)["answer"] in MARKED
    # A run that goes on loads its checkpoint with the same options.
    again = load_model(replace(config.model, name=str(tmp_path / "trained")))
    assert torch.equal(rows(again), rows(run.model))


def test_new_rows_are_the_same_for_all_that_are_seeded_alike(marked):
    config = config_of(marked("bert"))
    found = []
    for seed in (1, 1, 2):
        set_seed(seed)
        model = load_model(config.model)
        found.append(torch.cat([rows(model)[-1], model.qa_outputs.weight.detach().flatten()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_rows_beyond_the_tokenizer_stay(bert, tmp_path):
    model = AutoModelForQuestionAnswering.from_pretrained(bert)
    model.resize_token_embeddings(model.config.vocab_size + 30)
    folder = shutil.copytree(bert, tmp_path / "padded")
    model.save_pretrained(folder)
    assert torch.equal(rows(load_model(config_of(folder).model)), rows(model))


def test_ids_with_a_gap_need_embeddings_up_to_the_last(saved, tmp_path):
    folder = shutil.copytree(saved("bert"), tmp_path / "gap")
    definition = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = definition["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    vocabulary[last] += 10
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    config = config_of(folder).model
    tokenizer = load_tokenizer(config)
    needed = vocabulary[last] + 1
    with pytest.raises(ModelError, match=f"has {needed} tokens, but the model"):
        check_model(replace(config, resize_embeddings=False), tokenizer)
    assert len(rows(load_model(config))) == needed
