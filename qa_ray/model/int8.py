"""Linear layers in integers of 8 bits on CPUs, by oneDNN.

Weights are rounded once, each output channel by its own scale; inputs as they come, each token by its own smallest and
largest value: one scale for all tokens would change three answers in ten. All else stays fp32, the head that scores
tokens too.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from qa_ray.errors import ConfigError, require

_LARGEST_INPUT = 255
_LARGEST_WEIGHT, _LARGEST_WITHOUT_VNNI = 127, 63
_VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Instructions that add products without an overflow. Others keep the sum of two in 16 bits: weights have 7 then."""


def require_int8(option: str) -> None:
    """Refuse where torch has no such kernels; `option` is how the user asked for them.

    Raises:
        ConfigError: there are none.
    """
    try:
        Int8Linear(nn.Linear(1, 1))(torch.ones(1, 1))
    except (AttributeError, RuntimeError, TypeError) as error:
        raise ConfigError(f"{option}=int8 needs an x86 CPU and a torch with its kernels: use auto or fp32") from error


def use_int8(model: PreTrainedModel) -> None:
    """Round the weights of a model's linear layers, all but its head's, to integers; it can answer, not be trained.

    Raises:
        ConfigError: it has no such layers.
    """
    layers = {name: layer for name, layer in model.base_model.named_modules() if isinstance(layer, nn.Linear)}
    require(bool(layers), f"a model of type {model.config.model_type} has no layers for int8: use auto or fp32")
    for name, layer in layers.items():
        model.base_model.set_submodule(name, Int8Linear(layer))


class Int8Linear(nn.Module):
    """A linear layer with weights of 8 bits, for inputs and outputs in fp32."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        capabilities = torch.cpu.get_capabilities()
        has_vnni = any(capabilities.get(name, False) for name in _VNNI)
        largest = _LARGEST_WEIGHT if has_vnni else _LARGEST_WITHOUT_VNNI
        weight = layer.weight.detach().float()
        self._scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / largest
        rounded = (weight / self._scales[:, None]).round_()
        self._sums = rounded.sum(dim=1) * self._scales
        self._packed = torch.ops.onednn.qlinear_prepack(rounded.to(torch.int8), None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach().float()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Tensor [..., in_features] to [..., out_features]."""
        rows = input.reshape(-1, self.in_features)
        # Apart: torch.aminmax takes ten times as long.
        smallest, largest = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
        scale = (largest - smallest).clamp_min_(torch.finfo(torch.float32).tiny).div_(_LARGEST_INPUT)
        # By way of int16: straight to uint8 takes four times as long.
        rounded = (rows - smallest).div_(scale).round_().to(torch.int16).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, 0, self._packed, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        # A row is scale * rounded + smallest: the latter adds as much of each channel's sum of weights.
        product = torch.addcmul(self._bias, product, scale).addr_(smallest[:, 0], self._sums)
        return product.view(*input.shape[:-1], self.out_features)
