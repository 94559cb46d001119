"""What is recorded of a GPU."""

import pytest
import torch

from qa_ray.tracking.environment import describe_environment
from qa_ray.tracking.node_metrics import NodeSample, NodeSampler

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_gpu_is_named_and_its_memory_in_use_is_read() -> None:
    pytest.importorskip("mlflow")
    taken = torch.ones(2**26, device="cuda")
    put: list[NodeSample] = []
    told: list[str] = []
    with NodeSampler(60, put.append, told.append, address="192.0.2.2"):
        pass
    (sample,) = put
    assert not told
    gpus = {name: value for name, value in sample.metrics.items() if name.startswith("gpu_")}
    assert max(value for name, value in gpus.items() if name.endswith("memory_usage_megabytes")) >= taken.nbytes / 1e6
    assert all(0 <= value <= 100 for name, value in gpus.items() if name.endswith("utilization_percentage"))
    assert torch.cuda.get_device_name(0) in describe_environment()["gpu"]
