"""What the preflight sees of a GPU."""

import pytest
import torch

from qa_ray.config.policies import Precision
from qa_ray.doctor.machine import devices

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize("precision", list(Precision))
def test_gpu_is_named_and_computes(precision: Precision) -> None:
    found = devices(precision, use_gpu=True)
    assert [name for name, _ in found.gpus] == [
        torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
    ]
    assert found.precision in ("fp32", "bf16", "fp16")
