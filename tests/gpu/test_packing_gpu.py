"""Packed windows on a GPU: by torch's kernel of variable lengths in half precision, and window by window otherwise."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES
from small_runs import made_passages, make_collator, tiny_config

from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.model.compute import forward, span_loss
from qa_ray.model.empty import first_position
from qa_ray.model.loading import load_model
from qa_ray.model.packing import packed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

_ROUNDING = {None: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("precision", _ROUNDING, ids=str)
@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "llama"])
def test_packed_windows_have_the_logits_and_gradients_of_padded_ones(
    family: str, precision: torch.dtype | None, tmp_path: Path
) -> None:
    FAMILIES[family].save(tmp_path)
    config = ModelConfig(name=str(tmp_path), dropout=0.0)
    padded = make_collator(tiny_config(tmp_path, window={"max_length": 96, "stride": 8}), made_passages(9))
    models = load_model(dataclasses.replace(config, attention="eager")), load_model(packed(config))
    models[1].load_state_dict(models[0].state_dict())
    row = dataclasses.replace(padded, first_position=first_position(models[1]))
    found = []
    for model, collate in zip(models, (padded, row), strict=True):
        batch = collate(np.arange(len(padded.windows))).to(torch.device("cuda"))
        model.cuda().eval()
        with torch.autocast("cuda", precision or torch.float32, enabled=precision is not None):
            logits = forward(model, batch)
        span_loss(logits, batch).backward()
        gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        found.append((logits.start.detach(), logits.end.detach(), gradient))
    for expected, own in zip(*found, strict=True):
        finite = expected.isfinite()
        assert torch.equal(own.isfinite(), finite)
        difference = torch.linalg.vector_norm((own - expected)[finite])
        assert difference <= _ROUNDING[precision] * torch.linalg.vector_norm(expected[finite])
