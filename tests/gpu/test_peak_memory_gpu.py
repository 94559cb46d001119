"""The peak of a GPU's memory that a worker records."""

import pytest
import torch

from qa_ray.runs.run import peak_memory
from qa_ray.tracking.metrics import PEAK_GPU_MEMORY_GB, PEAK_MEMORY_GB

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_peak_is_what_tensors_took_at_most_also_when_they_are_gone() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    torch.cuda.reset_peak_memory_stats(device)
    before = peak_memory(device)[PEAK_GPU_MEMORY_GB]
    taken = torch.empty(2**28, dtype=torch.uint8, device=device)
    del taken
    peaks = peak_memory(device)
    assert peaks.keys() == {PEAK_MEMORY_GB, PEAK_GPU_MEMORY_GB}
    assert before + 0.268 < peaks[PEAK_GPU_MEMORY_GB] < before + 0.3
