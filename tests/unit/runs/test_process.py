"""How the process of a worker is set up."""

import ctypes
import subprocess
import sys

import pytest

_COUNT = """
import resource, torch
from qa_ray.runs.process import set_up_process
if {kept}:
    set_up_process(1)
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    torch.ones(1_000_000), torch.ones(12_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has another allocator")
def test_memory_of_one_step_serves_the_next() -> None:
    faults = [
        int(subprocess.check_output([sys.executable, "-c", _COUNT.format(kept=kept)], text=True))
        for kept in (True, False)
    ]
    assert 10 * faults[0] < faults[1]
