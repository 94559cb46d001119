"""Embeddings that add gradients row by row give those of torch's own."""

import copy

import pytest
import torch
from families import FAMILIES
from torch import nn
from transformers import AutoModelForQuestionAnswering

from qa_ray.model.embedding import RowEmbedding, use_row_gradients


class Scaled(nn.Embedding):
    """A table that looks up something else."""

    def forward(self, input):
        return 2 * super().forward(input)


def gradient(table, batches):
    """The gradient of micro-batches, one after another."""
    for batch in batches:
        outputs = table(batch)
        outputs.backward(torch.linspace(-1, 1, outputs.numel()).view_as(outputs))
    return table.weight.grad


@pytest.mark.parametrize("padding_idx", [None, 0])
def test_gradient_of_micro_batches_is_that_of_torchs_embedding(padding_idx):
    torch.manual_seed(0)
    table = nn.Embedding(50, 8, padding_idx)
    other = copy.deepcopy(table)
    use_row_gradients(other)
    # With rows that come back, in one batch and from batch to batch, and padding.
    batches = [torch.randint(20, (3, 11)), torch.randint(20, (2, 7)), torch.tensor([[0, 49, 49, 0]])]
    assert isinstance(other, RowEmbedding)
    assert torch.equal(other(batches[0]), table(batches[0]))
    torch.testing.assert_close(gradient(other, batches), gradient(table, batches), rtol=1e-6, atol=1e-6)
    assert other.weight.grad.layout is torch.strided


def test_micro_batches_after_the_first_make_no_gradient_of_the_whole_table():
    table = nn.Sequential(nn.Embedding(50, 8))
    use_row_gradients(table)
    made = []
    table[0].weight.register_hook(lambda of_batch: made.append(of_batch.layout))
    gradient(table[0], [torch.randint(50, (3, 11))] * 3)
    assert made == [torch.strided, torch.sparse_coo, torch.sparse_coo]


def test_layers_that_look_up_otherwise_are_left_alone():
    model = nn.Sequential(Scaled(5, 4))
    use_row_gradients(model)
    assert type(model[0]) is Scaled


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_has_the_gradients_that_it_had(name):
    model = AutoModelForQuestionAnswering.from_config(FAMILIES[name].config()).eval()
    other = copy.deepcopy(model)
    use_row_gradients(other)
    for each in (model, other):
        for seed in range(2):
            ids = torch.randint(5, 30, (2, 12), generator=torch.Generator().manual_seed(seed))
            logits = each(input_ids=ids, attention_mask=torch.ones_like(ids))
            (logits.start_logits[:, 3].sum() + logits.end_logits[:, 5].sum()).backward()
    for (path, weight), same in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (weight.grad is None) == (same.grad is None), path
        if weight.grad is not None:
            torch.testing.assert_close(same.grad, weight.grad, rtol=1e-5, atol=1e-6, msg=path)
