"""Windows of a batch in one row, without padding: an attention that keeps them apart, and the families that have it."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig

from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.data.collate import Batch, Collator, pack
from qa_ray.errors import ModelError
from qa_ray.model.compute import forward
from qa_ray.model.empty import empty_models, first_position

KERNEL = "packed"
"""The name by which Transformers knows `attend`."""

_HALF = (torch.float16, torch.bfloat16)
_NUM_WINDOWS = 4
# Shares of the largest logit: rounding makes less than the one of it, windows that see each other more than the other.
_ROUNDING, _MIXED = 1e-5, 1e-4


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention within each window of a row, in the form in which Transformers' models call it.

    Torch's kernel for windows of many lengths has no dropout, and is for GPUs in half precision; everything else is
    computed window by window.

    Args:
        module: the layer that calls.
        query: [1, heads, tokens, width].
        key: [1, shared heads, tokens, width]: as many heads as the query's, or a part of them that it shares.
        value: as `key`.
        attention_mask: nothing is padded, so there is none.
        cu_seq_lens_q: where windows begin, and where the last one ends, int32 [windows + 1].
        max_length_q: tokens of the longest window.
        scaling: factor of the scores; without it 1 / sqrt(width).
        dropout: share of the attention's weights that is dropped.
        sliding_window: a token sees those at a distance below it; without it, all of its window.
        is_causal: whether a token sees none behind it; without it, the layer's attribute of that name counts.

    Returns:
        What the tokens take from each other, [1, tokens, heads, width], and nothing in place of the weights.
    """
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    if key.shape[1] != query.shape[1]:
        key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for states in (key, value))
    if query.device.type == "cuda" and query.dtype in _HALF and dropout == 0:
        reach = -1 if sliding_window is None else sliding_window - 1
        q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
        ends, longest, window = cu_seq_lens_q, max_length_q, (reach, 0 if causal else reach)
        attended = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scaling, window_size=window)
        assert isinstance(attended, torch.Tensor)  # nothing else was asked for
        return attended[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    parts = [
        scaled_dot_product_attention(
            q, k, v, attn_mask=_seen(q, sliding_window, causal=causal), dropout_p=dropout, scale=scaling
        )
        for q, k, v in zip(*(torch.split(states, lengths, dim=2) for states in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _seen(states: torch.Tensor, sliding_window: int | None, *, causal: bool) -> torch.Tensor | None:
    """Which tokens of a window each of them sees, [tokens, tokens]; None if it is all."""
    if sliding_window is None and not causal:
        return None
    places = torch.arange(states.shape[2], device=states.device)
    distance = places[:, None] - places
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return seen if sliding_window is None else seen & (distance.abs() < sliding_window)


AttentionInterface.register(KERNEL, attend)


def packed(config: ModelConfig) -> ModelConfig:
    """The same model with an attention for packed windows, unless one is named."""
    return replace(config, attention=config.attention or KERNEL)


def check_packing(config: ModelConfig, settings: PretrainedConfig, collator: Collator) -> None:
    """Find out by a model's code alone whether it makes of packed windows what it makes of padded ones, on the CPU.

    Args:
        config: says which model it is.
        settings: its configuration.
        collator: makes padded windows that it will get.

    Raises:
        ModelError: it does not.
    """
    items = np.argsort(collator.windows.length, kind="stable")[:_NUM_WINDOWS]
    try:
        apart, mixed = _differences(config, settings, collator(items))
    # Each family has its own way of failing; one that cannot be built fails here, too.
    except Exception:
        apart = mixed = np.inf
    if not apart < _ROUNDING < _MIXED < mixed:
        raise ModelError(
            f"batch.packing: the attention of {settings.model_type} models does not keep the windows of one row apart: "
            "set batch.packing to False"
        )


def _differences(config: ModelConfig, settings: PretrainedConfig, batch: Batch) -> tuple[float, float]:
    """By what share of the largest logit those of packed windows differ from padded ones', apart and as one window."""
    usual, model = (
        next(empty_models(settings, trust_remote_code=config.trust_remote_code, attention=kernel))
        for kernel in (None, KERNEL)
    )
    drawn = torch.Generator().manual_seed(0)
    for weight, same in zip(usual.parameters(), model.parameters(), strict=True):
        same.copy_(weight.normal_(std=0.1, generator=drawn))
    apart = pack(batch, first_position(model))
    mixed = replace(apart, bounds=apart.bounds[[0, -1]], longest=int(apart.bounds[-1]))
    with torch.no_grad():
        expected, *found = (
            forward(one, given).start for one, given in ((usual, batch), (model, apart), (model, mixed))
        )
    inside = expected.isfinite()
    largest = expected[inside].abs().max()
    first, second = (float((logits - expected)[inside].abs().max() / largest) for logits in found)
    return first, second
