"""Windows in one row are to a model what padded ones are: the same logits, loss and gradients, by family."""

import dataclasses

import numpy as np
import pytest
import torch
from families import FAMILIES
from small_runs import made_passages, make_collator, tiny_config

from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.errors import ConfigError, ModelError
from qa_ray.model.compute import forward, span_loss
from qa_ray.model.empty import first_position
from qa_ray.model.forward_check import made_windows
from qa_ray.model.loading import load_model
from qa_ray.model.packing import check_packing, packed

PACKED = ("bert", "distilbert", "roberta", "modernbert", "gpt2", "llama")
NOT_PACKED = ("deberta", "xlnet")


def collators(family, folder):
    """The family's model and windows of many lengths, padded and packed."""
    FAMILIES[family].save(folder)
    config = ModelConfig(name=str(folder), dropout=0.0)
    padded = make_collator(tiny_config(folder, window={"max_length": 96, "stride": 8}), made_passages(9))
    models = load_model(dataclasses.replace(config, attention="eager")), load_model(packed(config))
    models[1].load_state_dict(models[0].state_dict())
    return models, (padded, dataclasses.replace(padded, first_position=first_position(models[1])))


@pytest.mark.parametrize("family", PACKED)
def test_packed_windows_have_the_logits_loss_and_gradients_of_padded_ones(family, tmp_path):
    models, both = collators(family, tmp_path)
    items = np.arange(len(both[0].windows))
    assert len(np.unique(both[0].windows.length)) > 4
    found = []
    for model, collate in zip(models, both, strict=True):
        batch = collate(items)
        logits = forward(model.eval(), batch)
        loss = span_loss(logits, batch)
        loss.backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        found.append((logits.start.detach(), logits.end.detach(), loss.detach(), *gradients))
    assert len(found[0]) == len(found[1])
    for expected, own in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=2e-6)
    assert torch.isneginf(found[0][0]).sum() > 0


@pytest.mark.parametrize("family", PACKED)
def test_nothing_is_padded(family, tmp_path):
    _, (padded, row) = collators(family, tmp_path)
    items = np.array([3, 1, 4])
    batch = row(items)
    assert batch.inputs["input_ids"].shape == (1, row.windows.length[items].sum())
    assert row.shape(items) == (1, row.windows.length[items].sum())
    positions = batch.inputs["position_ids"][0] - row.first_position
    assert positions.tolist() == [place for length in row.windows.length[items] for place in range(length)]
    assert torch.equal(batch.places, padded(items).places)


@pytest.mark.parametrize("name", FAMILIES)
def test_check_tells_which_families_can_be_packed(name):
    family = FAMILIES[name]
    windows = made_windows(family.tokenizer(), family.template(), 40)

    def check():
        check_packing(ModelConfig(name=name), family.config(), windows)

    if name.startswith(NOT_PACKED):
        with pytest.raises(
            ModelError, match=r"batch\.packing: the attention of (deberta-v2|xlnet) models does not keep"
        ):
            check()
    else:
        check()


def test_attention_that_mixes_windows_is_told(monkeypatch):
    family = FAMILIES["bert"]
    windows = made_windows(family.tokenizer(), family.template(), 40)
    monkeypatch.setattr("qa_ray.model.packing.first_position", lambda model: 3)
    with pytest.raises(ModelError, match="the attention of bert models"):
        check_packing(ModelConfig(name="bert"), family.config(), windows)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_kernels_that_pad_are_refused_with_packing(kernel, tmp_path):
    with pytest.raises(ConfigError, match=rf"batch\.packing: the attention kernel model\.attention={kernel} does not"):
        tiny_config(tmp_path, model={"attention": kernel}, batch={"packing": True})
    tiny_config(tmp_path, model={"attention": "flash_attention_2"}, batch={"packing": True})


def test_kernel_of_training_is_no_part_of_what_is_saved(tmp_path):
    FAMILIES["bert"].save(tmp_path / "bert")
    load_model(packed(ModelConfig(name=str(tmp_path / "bert")))).save_pretrained(tmp_path / "saved")
    assert "packed" not in (tmp_path / "saved" / "config.json").read_text()
