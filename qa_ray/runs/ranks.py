"""What the ranks do together before they train: an error that one of them meets is raised on all."""

from collections.abc import Callable
from typing import TypeVar, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from qa_ray.errors import UserError
from qa_ray.runs.failures import by_node

T = TypeVar("T")


def on_all(action: Callable[[], T]) -> T:
    """What `action` gives on this rank, once it has gone well on every rank.

    Raises:
        UserError: the first rank's that met one, with the address of its node.
    """
    result: T | None = None
    failure: UserError | None = None
    try:
        result = action()
    except UserError as error:
        failure = by_node(error)
    failures = [one for one in gather_object([failure]) if one is not None]
    if failures:
        raise failures[0]
    return cast(T, result)


def on_main(state: PartialState, action: Callable[[], T]) -> T:
    """What `action` gives on the main process, on every rank; its error of the user is raised on all."""
    outcome: list[tuple[T, None] | tuple[None, UserError] | None] = [None]
    if state.is_main_process:
        try:
            outcome = [(action(), None)]
        except UserError as error:
            outcome = [(None, by_node(error))]
    broadcast_object_list(outcome)
    assert outcome[0] is not None  # the main process has said it
    result, failure = outcome[0]
    if failure is not None:
        raise failure
    return cast(T, result)
