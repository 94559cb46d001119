"""The span head: a batch in, start and end logits out, and their loss."""

from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from qa_ray.data.collate import Batch


class Logits(NamedTuple):
    """Scores of each token as the first and the last of the answer, fp32 [windows, length]; -inf at padding."""

    start: torch.Tensor
    end: torch.Tensor


def forward(model: torch.nn.Module, batch: Batch) -> Logits:
    """Run the model on a batch.

    Padding is masked out, so that neither the loss nor the probabilities depend on how far a batch was padded.
    """
    outputs = model(**batch.inputs)
    padding = batch.inputs["attention_mask"] == 0
    return Logits(
        outputs.start_logits.float().masked_fill(padding, -torch.inf),
        outputs.end_logits.float().masked_fill(padding, -torch.inf),
    )


def span_loss(logits: Logits, batch: Batch) -> torch.Tensor:
    """Mean of the start and the end cross-entropy, summed over the windows: a scalar in nats."""
    start = torch.nn.functional.cross_entropy(logits.start, batch.start_positions, reduction="sum")
    end = torch.nn.functional.cross_entropy(logits.end, batch.end_positions, reduction="sum")
    return (start + end) / 2


def freeze_unused(model: PreTrainedModel, batch: Batch) -> int:
    """Freeze parameters that no logit depends on, and return their number.

    Ranks would wait for their gradients for ever; XLNet's mask embedding is one.
    """
    torch.autograd.backward(span_loss(forward(model, batch), batch))
    unused = [weight for weight in model.parameters() if weight.requires_grad and weight.grad is None]
    for weight in unused:
        weight.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    return len(unused)
