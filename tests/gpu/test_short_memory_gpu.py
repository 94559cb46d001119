"""A GPU whose memory does not hold a step's windows at once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from families import FAMILIES
from small_runs import made_passages, make_run, tiny_config

from qa_ray.tracking.metrics import TRAIN_LOSS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

# Activations of a window of 512 tokens: about 15 MB a layer with eager attention.
SHAPE = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
    "max_position_embeddings": 512,
}
BYTES = 3 * 2**30


@pytest.fixture
def small_gpu() -> Iterator[None]:
    """A GPU of which this process gets three gigabytes."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(BYTES / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("limit", [None, "auto"])
def test_step_that_does_not_fit_is_made_in_smaller_micro_batches(tmp_path: Path, small_gpu: None, limit: Any) -> None:
    bert = FAMILIES["bert"]
    replace(bert, settings=bert.settings | SHAPE).save(tmp_path)
    config = tiny_config(
        tmp_path,
        model={"dropout": 0.0, "attention": "eager"},
        window={"max_length": 512, "stride": 64},
        batch={"size": 256, "max_tokens_per_device": limit},
        train={"epochs": 1},
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    run = make_run(config, made_passages(256, num_words=(600, 700)), accelerator=Accelerator()).train()
    found = run.loop._add_gradient.limit.tokens
    assert found is not None
    assert 512 <= found < 256 * 512
    assert all(torch.isfinite(torch.tensor(run.metric(TRAIN_LOSS))))
    assert torch.cuda.max_memory_allocated() <= BYTES
