"""Linear layers by oneDNN give what torch's own give, forward and backward, and only where they are meant to."""

import copy
import platform

import pytest
import torch
from families import FAMILIES
from torch import nn

from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.model import onednn
from qa_ray.model.loading import load_model
from qa_ray.model.onednn import OneDnnLinear, use_onednn

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is for x86")


@pytest.fixture(autouse=True)
def avx512(monkeypatch):
    """Tested on every x86: without AVX-512 oneDNN is slower, and right."""
    monkeypatch.setattr(onednn, "_faster", lambda: True)


class Scaled(nn.Linear):
    """A layer that computes something else."""

    def forward(self, input):
        return 2 * super().forward(input)


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.Tanh(), nn.Linear(40, 8, bias=False))


def both(model):
    """A model as it is, and by oneDNN."""
    other = copy.deepcopy(model)
    use_onednn(other)
    return model, other


def gradients(model, inputs):
    inputs = inputs.detach().clone().requires_grad_()
    outputs = model(inputs)
    outputs.backward(torch.linspace(-1, 1, outputs.numel()).view_as(outputs))
    return [outputs.detach(), inputs.grad, *(weight.grad for weight in model.parameters())]


def counted(monkeypatch):
    """Numbers of rows that went through oneDNN's operator since."""
    rows, multiply = [], onednn._multiply

    def count(input, *others):
        rows.append(input.numel() // input.shape[-1])
        return multiply(input, *others)

    monkeypatch.setattr(onednn, "_multiply", count)
    return rows


@pytest.mark.parametrize("shape", [(24,), (5, 24), (3, 7, 24), (2, 3, 5, 24)], ids=str)
def test_outputs_and_gradients_are_those_of_torchs_linear_layers(shape, monkeypatch):
    usual, other = both(two_layers())
    inputs = torch.randn(shape)
    rows = counted(monkeypatch)
    found = gradients(other, inputs)
    assert rows[:2] == [inputs.numel() // 24] * 2
    for expected, own in zip(gradients(usual, inputs), found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)


def test_inputs_and_gradients_may_be_views():
    usual, other = both(two_layers())
    inputs = torch.randn(24, 6, 5).permute(2, 1, 0)
    for expected, own in zip(gradients(usual, inputs), gradients(other, inputs), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)


def test_what_needs_no_gradient_gets_none():
    _, other = both(two_layers())
    other[0].weight.requires_grad_(False)
    other(torch.randn(5, 24)).sum().backward()
    assert other[0].weight.grad is None
    assert other[0].bias.grad is not None
    assert other[2].weight.grad is not None


def test_nothing_but_fp32_goes_by_onednn(monkeypatch):
    usual, other = both(two_layers())
    rows, inputs = counted(monkeypatch), torch.randn(5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(other(inputs), usual(inputs))
    assert torch.equal(other.double()(inputs.double()), usual.double()(inputs.double()))
    assert other.float()(torch.empty(0, 24)).shape == (0, 8)
    assert rows == []
    other(inputs)
    assert rows == [5, 5]


def test_compiled_models_go_on_to_work():
    usual, other = both(two_layers())
    inputs = torch.randn(5, 24)
    torch.testing.assert_close(torch.compile(other, backend="aot_eager")(inputs), usual(inputs))


def test_layers_of_another_kind_stay_what_they_are():
    model = nn.Sequential(nn.Linear(2, 2), Scaled(2, 2))
    use_onednn(model)
    assert [type(layer) for layer in model] == [OneDnnLinear, Scaled]


@pytest.mark.parametrize("has_avx512", [False, True], ids=["without", "with"])
def test_only_processors_with_avx512_compute_by_it(has_avx512, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": has_avx512})
    _, other = both(two_layers())
    assert {type(layer) for layer in other if isinstance(layer, nn.Linear)} == {
        OneDnnLinear if has_avx512 else nn.Linear
    }


def test_loaded_models_compute_by_it_and_are_saved_as_ever(tmp_path):
    FAMILIES["bert"].save(tmp_path / "bert")
    model = load_model(ModelConfig(name=str(tmp_path / "bert")))
    linear = [type(layer) for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert linear
    assert set(linear) == {OneDnnLinear}
    model.save_pretrained(tmp_path / "again")
    for name, weight in load_model(ModelConfig(name=str(tmp_path / "again"))).state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
