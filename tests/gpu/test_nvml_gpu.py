"""What NVIDIA's binding tells of a GPU."""

import pytest
import torch

from qa_ray.tracking.environment import describe_environment
from qa_ray.tracking.node_metrics import read_gpus

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_gpu_is_named_and_its_memory_in_use_is_read() -> None:
    taken = torch.ones(2**26, device="cuda")
    found = read_gpus()
    assert max(value for name, value in found.items() if name.endswith("memory_usage_megabytes")) >= taken.nbytes / 1e6
    assert all(0 <= value <= 100 for name, value in found.items() if name.endswith("utilization_percentage"))
    assert torch.cuda.get_device_name(0) in describe_environment()["gpu"]
