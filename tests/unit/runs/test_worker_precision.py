"""TF32 is what a GPU takes for fp32 where that is asked for, and then the record says so."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from small_runs import tiny_config

from qa_ray.runs.worker import make_accelerator, number_format


@pytest.fixture
def matmul() -> Iterator[Any]:
    """Torch's settings for products of matrices on GPUs, which it holds on machines without any too."""
    yield torch.backends.cuda.matmul
    torch.backends.cuda.matmul.allow_tf32 = False


def test_tf32_is_taken_where_it_is_asked_for_whatever_was_before(bert: Any, matmul: Any) -> None:
    for tf32 in (True, False):
        AcceleratorState._reset_state(reset_partial_state=True)
        make_accelerator(tiny_config(bert, train={"tf32": tf32}), use_gpu=True)
        assert matmul.allow_tf32 is tf32


@pytest.mark.parametrize(
    ("tf32", "device", "precision", "said"),
    [
        (True, "cuda", "no", "fp32 with matrices in TF32"),
        (False, "cuda", "no", "fp32"),
        (True, "cuda", "bf16", "bf16"),
        (True, "cpu", "no", "fp32"),
    ],
)
def test_record_says_tf32_where_that_is_so(bert: Any, tf32: bool, device: str, precision: str, said: str) -> None:
    accelerator: Any = SimpleNamespace(device=torch.device(device), mixed_precision=precision)
    assert number_format(tiny_config(bert, train={"tf32": tf32}), accelerator) == said
