"""Linear layers in integers of 8 bits on CPUs, by oneDNN.

Weights are rounded once, each output channel by its own scale; inputs as they come, by their smallest and largest
values. All else stays fp32, the head that scores tokens too.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from qa_ray.errors import ConfigError, require

_LARGEST_WEIGHT = 127
_VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Instructions that add four products of 8 bits without an overflow."""


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
        weight = layer.weight.detach().float()
        self._scales = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST_WEIGHT
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = None if layer.bias is None else layer.bias.detach().float()
        rounded = (weight / self._scales[:, None]).round_().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        capabilities = torch.cpu.get_capabilities()
        # Without these instructions a sum of two products has 16 bits, and inputs of more than 7 would overflow it.
        self._largest_input = 255 if any(capabilities.get(name, False) for name in _VNNI) else 127

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Tensor [..., in_features] to [..., out_features]."""
        smallest, largest = (min(input.min().item(), 0.0), max(input.max().item(), 0.0))
        scale = (largest - smallest) / self._largest_input or 1.0
        zero = round(-smallest / scale)
        rounded = (input / scale).add_(zero).round_().clamp_(0, self._largest_input).to(torch.uint8)
        product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded,
            scale,
            zero,
            self._packed,
            self._scales,
            self._zeros,
            self._bias,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return product
