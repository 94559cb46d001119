"""Linear layers in fp32 on CPUs with AVX-512 by oneDNN, which torch uses for bf16 alone.

For fp32 torch calls Intel's MKL, which has no AVX-512 for the processors of others: on AMD's, oneDNN is twice as fast.
Without AVX-512, MKL is as fast in the forward pass, and makes the gradients of weights in two thirds of the time.
"""

import os
from typing import Any

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable


def use_onednn(model: nn.Module) -> None:
    """Let a model's linear layers compute by oneDNN wherever their input is fp32 on a CPU; weights stay as they are."""
    # A kernel is kept for each shape: the default of 1,024 costs a fifth of the memory, and no time is saved.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    if _faster() and _available():
        for layer in model.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = OneDnnLinear


class OneDnnLinear(nn.Linear):
    """A linear layer that computes by oneDNN in fp32 on a CPU, and as usual elsewhere."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Tensor [..., in_features] to [..., out_features]."""
        in_fp32 = input.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        # What is compiled has other means for it, and may hold this operator for constant weights only.
        if input.device.type != "cpu" or not in_fp32 or input.numel() == 0 or torch.compiler.is_compiling():
            return super().forward(input)
        product: torch.Tensor = _Product.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        return _multiply(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            _multiply(gradient, weight.t()) if of_input else None,
            _multiply(rows.t(), input.reshape(-1, input.shape[-1]).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _multiply(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return product


def _faster() -> bool:
    """Whether oneDNN has instructions that MKL may not use here."""
    return bool(torch.cpu.get_capabilities().get("avx512_f", False))


def _available() -> bool:
    """Whether torch has this operator, which is one of those that torch.compile makes use of."""
    try:
        return _multiply(torch.ones(1, 1), torch.ones(1, 1)).item() == 1
    except (AttributeError, RuntimeError, TypeError):  # another version of torch may have it in another form
        return False
