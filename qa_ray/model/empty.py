"""A model without its weights: what its code and its configuration alone can tell, in a moment and in little memory."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForQuestionAnswering, PretrainedConfig, PreTrainedModel


def empty_models(
    settings: PretrainedConfig, *, trust_remote_code: bool, attention: str | None = None
) -> Iterator[PreTrainedModel]:
    """Make the model with a span head on the CPU, in fp32 and with weights of zero: with one layer, then whole.

    A depth that cannot be built is left out: its family may need what is not here, or have its layers in blocks.
    Without `attention`, the name of a kernel, Transformers chooses one.
    """
    for shallow in (True, False):
        try:
            own = copy.deepcopy(settings)
            own._attn_implementation = attention
            yield _empty(own, shallow=shallow, trust_remote_code=trust_remote_code)
        # Also code that comes with the model may raise whatever it likes.
        except Exception:
            continue


def num_positions(settings: PretrainedConfig, *, trust_remote_code: bool) -> int | None:
    """Most tokens that the model's positions reach; None if they have no end.

    Models after RoBERTa's pattern number their tokens from the padding id + 1 on, so that the first rows of their table
    of positions are never used: 514 rows with the padding id 1 reach 512 tokens. Such a table has a padding row, by
    which it is told from BERT's. The limit of rotary positions is the one that the model was trained for.
    """
    limit = getattr(settings, "max_position_embeddings", None) or 0
    # XLNet gives -1. DeBERTa has the number, but no such table if nothing is added to its input: it clips distances.
    if limit <= 0 or not getattr(settings, "position_biased_input", True):
        return None
    model = next(empty_models(settings, trust_remote_code=trust_remote_code), None)
    return limit - (first_position(model) if model else 0)


def first_position(model: PreTrainedModel) -> int:
    """The number that the first token of an input has among the model's positions."""
    tables = [module for name, module in model.named_modules() if name.endswith(".position_embeddings")]
    padding_rows = [row for table in tables if (row := getattr(table, "padding_idx", None)) is not None]
    return max((row + 1 for row in padding_rows), default=0)


class _WithoutWeights(TorchFunctionMode):
    """Weights that are made here get no memory, and so no values; buffers, such as the numbers of positions, do.

    torch.empty is what layers make their weights with, and hardly anything else. Unlike accelerate's
    init_empty_weights, a mode of torch holds in this thread alone: another one may be loading a model meanwhile.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        further = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **(kwargs or {}) | further)


def _empty(settings: PretrainedConfig, *, shallow: bool, trust_remote_code: bool) -> PreTrainedModel:
    if shallow:
        _leave_one_layer(settings)
    # Whoever asks may be in the middle of drawing numbers.
    with torch.random.fork_rng(devices=[]), _WithoutWeights():
        model: PreTrainedModel = AutoModelForQuestionAnswering.from_config(
            settings, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
    if any(buffer.is_meta for buffer in model.buffers()):
        raise ValueError("its buffers are made as weights are, so that their values are not known")
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            # Unlike torch's zeros, numpy's take no memory until they are written to.
            zeros = torch.from_numpy(np.zeros(weight.shape, np.float32)).to(weight.dtype)
            setattr(module, name, torch.nn.Parameter(zeros, requires_grad=False))
    return model.eval()


def _leave_one_layer(settings: PretrainedConfig) -> None:
    depth = settings.num_hidden_layers
    for name, value in list(vars(settings).items()):
        # What is said of each layer, such as Longformer's attention_window and ModernBERT's layer_types.
        if isinstance(value, list | tuple) and len(value) == depth:
            setattr(settings, name, value[:1])
    settings.num_hidden_layers = 1
