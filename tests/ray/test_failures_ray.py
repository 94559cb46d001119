"""An error on one rank alone, while the other waits for it in a collective: the job ends, with that error, at once."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from ray import cloudpickle, train
from ray.train import TrainingFailedError

from qa_ray.config.operation import ClusterConfig
from qa_ray.errors import ModelError, WorkerError, WorkerLostError
from qa_ray.runs.driver import make_trainer
from qa_ray.runs.failures import cause_of, raised_by_node
from qa_ray.runs.resources import Resources

pytestmark = pytest.mark.usefixtures("ray_cluster")

# Workers cannot import a module of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
ONCE = ["0", "1"]


def fail_alone(place: Path, error: Callable[[], Exception]) -> None:
    """Rank 1 fails, and rank 0 waits for it."""
    with raised_by_node():
        rank = train.get_context().get_world_rank()
        with (place / "attempts").open("a") as attempts:
            attempts.write(f"{rank}\n")
        if rank == 1:
            raise error()
        torch.distributed.all_reduce(torch.ones(1))


class DiesAtFirst:
    """What a worker is told to do; the first one that is told dies of it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __call__(self) -> None:
        fail_alone(self.place, partial(ModelError, "told"))

    def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
        return told, (self.place,)


def told(place: Path) -> DiesAtFirst:
    with contextlib.suppress(FileExistsError):
        (place / "died").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    return DiesAtFirst(place)


def run(place: Path, error: Callable[[], Exception], max_failures: int = 5) -> tuple[Exception, list[str]]:
    """What the driver raises, and the ranks that began."""
    cluster = ClusterConfig(max_failures=max_failures)
    work = partial(fail_alone, place, error)
    trainer = make_trainer(work, Resources(2, 2, 1, False), cluster, name="failing", storage_path=str(place))
    with pytest.raises(TrainingFailedError) as caught:
        trainer.fit()
    return cause_of(caught.value, WorkerLostError), sorted((place / "attempts").read_text().split())


def test_what_the_user_can_mend_ends_the_job_at_once_and_names_the_node(tmp_path: Path) -> None:
    cause, attempts = run(tmp_path, partial(ModelError, "the weights are not here"))
    assert isinstance(cause, ModelError)
    assert str(cause).startswith("node ")
    assert str(cause).endswith(": the weights are not here")
    assert attempts == ONCE


def test_what_nobody_foresaw_ends_the_job_at_once_with_its_traceback(tmp_path: Path) -> None:
    cause, attempts = run(tmp_path, partial(KeyError, "grad_norm"))
    assert isinstance(cause, WorkerError)
    assert "KeyError: 'grad_norm'" in str(cause)
    assert "in fail_alone" in str(cause)
    assert attempts == ONCE


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    cause, attempts = run(tmp_path, partial(ConnectionResetError, "refused"), max_failures=1)
    assert isinstance(cause, WorkerLostError)
    assert "ConnectionResetError: refused" in str(cause)
    assert attempts == ["0", "0", "1", "1"]


def test_worker_that_is_lost_as_it_is_told_to_begin_is_replaced(tmp_path: Path) -> None:
    trainer = make_trainer(
        DiesAtFirst(tmp_path),
        Resources(2, 2, 1, False),
        ClusterConfig(max_failures=1),
        name="lost",
        storage_path=str(tmp_path),
    )
    with pytest.raises(TrainingFailedError) as caught:
        trainer.fit()
    assert (tmp_path / "died").exists()
    assert isinstance(cause_of(caught.value, WorkerLostError), ModelError)
    # The other one of the first group may have begun; the one that died has only in the second.
    assert set((tmp_path / "attempts").read_text().split()) == set(ONCE)
