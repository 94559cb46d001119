"""How the work on a rank ended, as the driver learns of it; Ray's controller reads it too, so it needs no torch.

What goes wrong and can be mended takes one way: the ranks agree on it (`ranks`), each returns it, the driver raises it.
Ray prints the traceback of what is raised on a worker instead, and starts the workers again: right for what nobody can
mend, such as a process that was lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from qa_ray.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended on this rank."""

    step: int
    num_steps: int
    best_step: int | None
    """Step of the best evaluation, known to rank 0."""
    stopped: bool
    """Whether it was asked to stop before its end."""
    ledger: str
    """Digest of all batches trained, see `TrainState`."""


def returned(work: Callable[[], T]) -> T | UserError:
    """What `work` returns, or the error that the user can mend: on a worker."""
    try:
        return work()
    except UserError as error:
        return error


def raised(result: T | UserError) -> T:
    """What the worker returned, or its error raised: on the driver."""
    if isinstance(result, UserError):
        raise result
    return result
