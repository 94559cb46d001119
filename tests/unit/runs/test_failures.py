"""What becomes of an error on a worker: who raises it, who ends the job with it, and what starts the workers again."""

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.exceptions import ActorDiedError, RayActorError
from ray.train import ControllerError, WorkerGroupError

from qa_ray.errors import ClusterError, ModelError, StorageError, UserError, WorkerError
from qa_ray.runs.failures import EndOnError, cause_of, may_pass, raised_by_node

LOST_PEER = RuntimeError("[pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Connection reset by peer")


def test_error_that_a_user_can_mend_names_its_node() -> None:
    with pytest.raises(ModelError, match=r"^node [\d.]+: the weights are not here$"), raised_by_node():
        raise ModelError("the weights are not here")


def test_error_that_nobody_foresaw_names_its_node_and_keeps_its_traceback() -> None:
    with pytest.raises(WorkerError) as caught, raised_by_node():
        _ = {}["gone"]
    text = str(caught.value)
    assert text.startswith("node ")
    assert ": KeyError: 'gone'\n" in text
    assert "test_failures.py" in text
    assert not isinstance(caught.value, UserError)


def test_memory_that_does_not_hold_the_model_is_no_matter_of_chance() -> None:
    with pytest.raises(ClusterError, match=r"does not hold the model .* \(CUDA out of memory\)$"), raised_by_node():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    "error",
    [
        LOST_PEER,
        torch.distributed.DistBackendError("NCCL communicator was aborted"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ConnectionResetError(),
        OSError(errno.EIO, "Input/output error"),
        RayActorError(),
    ],
    ids=["gloo", "NCCL", "GPU", "connection", "disk", "actor"],
)
def test_error_of_network_or_hardware_is_raised_as_it_is(error: Exception) -> None:
    assert may_pass(error)
    with pytest.raises(type(error)) as caught, raised_by_node():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        RuntimeError("size mismatch"),
        FileNotFoundError(errno.ENOENT, "gone"),
        OSError(errno.ENOSPC, ""),
    ],
    ids=["value", "shapes", "file", "full disk"],
)
def test_what_would_come_again_may_not_pass(error: Exception) -> None:
    assert not may_pass(error)


@pytest.mark.parametrize("error", [StorageError("full"), WorkerError("a bug")], ids=["user", "bug"])
def test_controller_ends_the_job_with_what_would_come_again(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        EndOnError().after_exception(SimpleNamespace(), {0: LOST_PEER, 1: error})


def test_controller_starts_workers_again_after_what_may_pass() -> None:
    EndOnError().after_exception(SimpleNamespace(), {0: LOST_PEER, 1: ActorDiedError()})


@pytest.mark.parametrize(
    ("failed", "cause"),
    [
        (ControllerError(StorageError("full")), StorageError("full")),
        (ControllerError(WorkerError("a bug")), WorkerError("a bug")),
        (ControllerError(ActorDiedError()), ClusterError("lost: a worker process was lost")),
        (WorkerGroupError("", {0: LOST_PEER, 1: RayActorError()}), ClusterError("lost: a worker process was lost")),
        (WorkerGroupError("", {0: LOST_PEER}), ClusterError("lost: a worker process was lost")),
        (
            WorkerGroupError("", {0: OSError(5, "bad"), 1: OSError(5, "bad")}),
            ClusterError("lost: workers failed (OSError: [Errno 5] bad)"),
        ),
    ],
    ids=["user", "bug", "lost in the start", "lost", "peer of a lost one", "disk"],
)
def test_driver_raises_what_the_worker_met(failed: ControllerError | WorkerGroupError, cause: Exception) -> None:
    found = cause_of(failed, lambda what: ClusterError(f"lost: {what}"))
    assert (type(found), str(found)) == (type(cause), str(cause))


def test_error_of_rays_own_controller_stays_what_it_is() -> None:
    failed = ControllerError(ValueError("no"))
    assert cause_of(failed, ClusterError) is failed


# Two ranks that are told what the main process did: forked, so that what is imported is imported once.
TWO_RANKS = """
import multiprocessing, os, sys
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from qa_ray.errors import StorageError
from qa_ray.runs.ranks import on_main

def store(rank):
    raise StorageError(f"the disk of rank {rank} is full")

def work(rank, out):
    for scope in ("", "LOCAL_"):
        os.environ |= {f"{scope}RANK": str(rank), f"{scope}WORLD_SIZE": "2"}
    meeting = InitProcessGroupKwargs(init_method=f"file://{out}/meeting")
    accelerator = Accelerator(cpu=True, kwargs_handlers=[meeting])
    seen = [on_main(accelerator, lambda: f"from rank {rank}")]
    try:
        on_main(accelerator, lambda: store(rank))
    except StorageError as error:
        seen.append(str(error))
    with open(f"{out}/{rank}", "w") as file:
        file.write("\\n".join(seen))

ranks = [multiprocessing.get_context("fork").Process(target=work, args=(rank, sys.argv[1])) for rank in range(2)]
for process in ranks: process.start()
for process in ranks: process.join()
sys.exit(any(process.exitcode for process in ranks))
"""


def test_all_ranks_have_what_the_main_process_did(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TWO_RANKS, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    seen = [(tmp_path / str(rank)).read_text().splitlines() for rank in range(2)]
    assert seen[0] == seen[1]
    assert seen[0][0] == "from rank 0"
    assert seen[0][1].startswith("node ")
    assert seen[0][1].endswith(": the disk of rank 0 is full")
