"""How an error on a worker ends a job: in one way for training and for evaluation.

The rank that meets an error raises it, wherever it is. Ray Train hears of it within seconds and ends the others, also
those that wait for it in a collective. What would come again ends the job with that error; what may pass, such as a
lost process or a broken connection, starts the workers again, up to cluster.max_failures times.
"""

import contextlib
import errno
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.train import ControllerError, TrainingFailedError, UserCallback, WorkerGroupError

from qa_ray.errors import ClusterError, UserError, WorkerError

# Words of torch's backends about a lost peer, or a GPU that has failed: many are plain RuntimeErrors.
_WORDS_OF_BACKENDS = ("gloo", "NCCL", "CUDA", "Dist", "Accelerator")
_PASSING_NUMBERS = (errno.EIO, errno.ESTALE)


@contextlib.contextmanager
def raised_by_node() -> Iterator[None]:
    """On a worker: what would come again is raised as one of qa_ray's errors, which names this node.

    Raises:
        UserError: something that the user can mend.
        WorkerError: anything else that would come again, with its traceback.
    """
    try:
        yield
    except UserError as error:
        raise by_node(error) from error
    except Exception as error:
        # Torch is not imported for its name. Steps and evaluations meet it by themselves, so it was none of them.
        if type(error).__name__ == "OutOfMemoryError":
            reason = str(error).partition(". ")[0]
            raise ClusterError(
                f"node {_address()}: the GPU's memory does not hold the model and what training keeps beside it, 16 "
                f"bytes for each weight: take GPUs with more memory, or a smaller model ({reason})"
            ) from error
        if may_pass(error):
            raise
        text = "".join(traceback.format_exception(error))
        raise WorkerError(f"node {_address()}: {type(error).__name__}: {error}\n\n{text}") from None


def by_node(error: UserError) -> UserError:
    """The error with the name of this node, unless another rank told it, which has named its own."""
    return error if str(error).startswith("node ") else type(error)(f"node {_address()}: {error}")


def may_pass(error: Exception) -> bool:
    """Whether an error need not come again: of Ray, the network, a network disk, or a GPU and its like."""
    if isinstance(error, RuntimeError):
        return any(word in f"{type(error).__name__} {error}" for word in _WORDS_OF_BACKENDS)
    if isinstance(error, OSError) and error.errno in _PASSING_NUMBERS:
        return True
    return isinstance(error, RayError | ConnectionError | TimeoutError)


class EndOnError(UserCallback):  # type: ignore[misc]  # Ray's classes have no types
    """In Ray's controller: an error that would come again ends the job at once."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise what would come again; the controller then ends all workers and tells the driver."""
        for error in worker_exceptions.values():
            if isinstance(error, UserError | WorkerError):
                raise error


def cause_of(error: TrainingFailedError, lost: Callable[[str], UserError]) -> Exception:
    """What the driver raises: the worker's own error; or `lost`, given what became of workers too often."""
    if isinstance(error, ControllerError):
        failure: Exception = error.controller_failure
        if isinstance(failure, RayActorError):  # lost while its group was started
            return lost("a worker process was lost")
        return failure if isinstance(failure, UserError | WorkerError) else error
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else []
    # A worker that died is known by its health check; the others fail in its wake, whatever they were doing.
    causes = [getattr(one, "health_check_failure", None) or one for one in failures]
    # Ray may hear first of one whose connection to the lost one has broken.
    if any(isinstance(cause, RayActorError) or "by peer" in str(cause) for cause in causes):
        return lost("a worker process was lost")
    reasons = sorted({f"{type(cause).__name__}: {' '.join(str(cause).split())}" for cause in causes})
    return lost(f"workers failed ({'; '.join(reasons)})") if reasons else error


def _address() -> str:
    return str(ray.util.get_node_ip_address())
