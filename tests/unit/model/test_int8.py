"""Linear layers in integers compute what those in fp32 do, up to the rounding of 8 bits, in every family."""

import platform

import pytest
import torch
from families import FAMILIES
from torch import nn

from qa_ray.answers import QuestionAnswerer
from qa_ray.config.policies import AnswerPrecision
from qa_ray.errors import ConfigError
from qa_ray.model import compute
from qa_ray.model.compute import answering_precision
from qa_ray.model.int8 import Int8Linear, require_int8, use_int8

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="int8 is for x86")


def test_a_layer_is_that_of_fp32_up_to_rounding():
    torch.manual_seed(0)
    layer = nn.Linear(256, 64)
    inputs = torch.randn(3, 17, 256)
    expected = layer(inputs)
    found = Int8Linear(layer)(inputs)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    assert not torch.equal(found, expected)


def test_each_output_channel_has_a_scale_of_its_own():
    layer = nn.Linear(32, 2, bias=False)
    layer.weight.data[0] *= 1000
    inputs = torch.randn(5, 32)
    small = layer(inputs)[:, 1]
    assert (Int8Linear(layer)(inputs)[:, 1] - small).abs().max() < 0.05 * small.abs().max()


def test_channels_of_nothing_but_zeros_give_zeros():
    layer = nn.Linear(8, 3, bias=False)
    nn.init.zeros_(layer.weight)
    assert torch.equal(Int8Linear(layer)(torch.randn(4, 8)), torch.zeros(4, 3))


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"gpt2"}))
def test_models_of_every_family_answer_in_int8(family, tmp_path):
    FAMILIES[family].save(tmp_path / family)
    answerer = QuestionAnswerer.from_pretrained(str(tmp_path / family), device="cpu", precision="int8")
    assert any(isinstance(layer, Int8Linear) for layer in answerer.model.modules())
    head = getattr(answerer.model, "classifier" if family == "modernbert" else "qa_outputs")
    assert isinstance(head, nn.Linear)
    question, context = "Who laid the first stone?", "Charles IV. laid the first stone in 1357."
    plain = QuestionAnswerer.from_pretrained(str(tmp_path / family), device="cpu")
    first, second = (one(question, context, top_k=3) for one in (answerer, plain))
    assert [one["score"] for one in first] == pytest.approx([one["score"] for one in second], rel=0.1)


def test_models_without_linear_layers_are_refused(tmp_path):
    FAMILIES["gpt2"].save(tmp_path / "gpt2")
    with pytest.raises(ConfigError, match="a model of type gpt2 has no layers for int8"):
        QuestionAnswerer.from_pretrained(str(tmp_path / "gpt2"), device="cpu", precision="int8")


def test_the_head_and_all_else_stay_as_they_are(tmp_path):
    FAMILIES["bert"].save(tmp_path / "bert")
    model = QuestionAnswerer.from_pretrained(str(tmp_path / "bert"), device="cpu").model
    before = {type(layer) for layer in model.modules() if not isinstance(layer, nn.Linear)}
    use_int8(model)
    assert {type(layer) for layer in model.modules() if not isinstance(layer, nn.Linear)} == before | {Int8Linear}
    assert [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)] == ["qa_outputs"]


def test_where_it_cannot_be_it_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="--precision=int8 needs a CPU: use bf16 or fp16 on GPUs"):
        answering_precision("int8", torch.device("cuda"), "--precision")
    with pytest.raises(ConfigError, match="precision='int4' must be one of auto, fp32, bf16, fp16, int8"):
        answering_precision("int4", CPU)
    monkeypatch.setattr(torch.ops.onednn, "qlinear_prepack", None)
    with pytest.raises(ConfigError, match="precision=int8 needs an x86 CPU"):
        require_int8("precision")


def test_bf16_that_a_cpu_would_emulate_is_told_and_left(monkeypatch, caplog):
    monkeypatch.setattr(compute, "emulates_bf16", lambda device: True)
    assert answering_precision("bf16", CPU) is AnswerPrecision.FP32
    assert "precision=bf16: this CPU has no instructions for it" in caplog.text
    monkeypatch.setattr(compute, "emulates_bf16", lambda device: False)
    assert answering_precision("bf16", CPU) is AnswerPrecision.BF16
    assert answering_precision("auto", CPU) is AnswerPrecision.BF16
