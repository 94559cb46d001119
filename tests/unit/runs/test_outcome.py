"""What goes wrong on one rank is returned by all, and raised by the driver."""

import subprocess
import sys
from pathlib import Path

import pytest

from qa_ray.errors import ModelError, StorageError
from qa_ray.runs.outcome import raised, returned

# Two ranks, of which one meets an error: forked, so that what is imported is imported once.
TWO_RANKS = """
import multiprocessing, os, sys
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from qa_ray.errors import ModelError, StorageError
from qa_ray.runs.outcome import returned
from qa_ray.runs.ranks import on_all, on_main

def load(rank):
    if rank == 1:
        raise ModelError("the weights are not here")
    return "weights"

def store(rank):
    raise StorageError(f"the disk of rank {rank} is full")

def work(rank, out):
    for scope in ("", "LOCAL_"):
        os.environ |= {f"{scope}RANK": str(rank), f"{scope}WORLD_SIZE": "2"}
    meeting = InitProcessGroupKwargs(init_method=f"file://{out}/meeting")
    accelerator = Accelerator(cpu=True, kwargs_handlers=[meeting])
    seen = [
        returned(lambda: on_all(lambda: load(rank))),
        returned(lambda: on_all(lambda: f"share of rank {rank}")),
        returned(lambda: on_main(accelerator, lambda: store(rank))),
        returned(lambda: on_main(accelerator, lambda: f"from rank {rank}")),
    ]
    with open(f"{out}/{rank}", "w") as file:
        file.write("\\n".join(f"{type(one).__name__} {one}" for one in seen))

ranks = [multiprocessing.get_context("fork").Process(target=work, args=(rank, sys.argv[1])) for rank in range(2)]
for process in ranks: process.start()
for process in ranks: process.join()
sys.exit(any(process.exitcode for process in ranks))
"""


def test_error_of_one_rank_ends_all_with_the_same_words(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TWO_RANKS, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = ((tmp_path / str(rank)).read_text().splitlines() for rank in range(2))
    assert first[0] == second[0]
    assert first[0].startswith("ModelError node ")
    assert first[0].endswith(": the weights are not here")
    assert [first[1], second[1]] == ["str share of rank 0", "str share of rank 1"]
    assert first[2:] == second[2:] == ["StorageError the disk of rank 0 is full", "str from rank 0"]


def test_errors_that_a_user_can_mend_are_returned_and_raised_again() -> None:
    def fail() -> str:
        raise StorageError("full")

    assert raised(returned(lambda: "fine")) == "fine"
    with pytest.raises(StorageError, match="full"):
        raised(returned(fail))
    with pytest.raises(ZeroDivisionError):
        returned(lambda: str(1 / 0))
    with pytest.raises(ModelError):
        raised(ModelError("gone"))
