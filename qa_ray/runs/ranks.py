"""What the main process does for all ranks."""

from collections.abc import Callable
from typing import TypeVar, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from qa_ray.errors import UserError

T = TypeVar("T")


def on_main(state: PartialState, action: Callable[[], T]) -> T:
    """What `action` gives on the main process, on every rank; an error of the user is raised on all."""
    outcome: list[tuple[T, None] | tuple[None, UserError] | None] = [None]
    if state.is_main_process:
        try:
            outcome = [(action(), None)]
        except UserError as error:
            outcome = [(None, error)]
    broadcast_object_list(outcome)
    assert outcome[0] is not None  # the main process has said it
    result, failure = outcome[0]
    if failure is not None:
        raise failure
    return cast(T, result)
