"""Embeddings whose gradient is made of the rows alone that a micro-batch has looked up: faster on CPUs."""

import torch
from torch import nn


def use_row_gradients(model: nn.Module) -> None:
    """Let a model's embeddings add their gradients row by row wherever there is a gradient to add to.

    Else each micro-batch makes a gradient as large as the table, most of it zeros: half of a small model's weights.
    """
    for layer in model.modules():
        if type(layer) is nn.Embedding:
            layer.__class__ = RowEmbedding


class RowEmbedding(nn.Embedding):
    """An embedding whose gradient is dense, and is added to row by row from a step's second micro-batch on."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Token ids [...] to embeddings [..., embedding_dim]."""
        if self.weight.grad is None or torch.compiler.is_compiling():
            return super().forward(input)
        rest = self.padding_idx, self.max_norm, self.norm_type
        return nn.functional.embedding(input, self.weight, *rest, sparse=True)
