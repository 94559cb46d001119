"""What the ranks do together: an error that one of them meets is raised on all, so that none waits for another."""

from collections.abc import Callable
from typing import TypeVar, cast

import ray
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from qa_ray.errors import UserError

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
        failure = type(error)(f"node {ray.util.get_node_ip_address()}: {error}")
    failures = [one for one in gather_object([failure]) if one is not None]
    if failures:
        raise failures[0]
    return cast(T, result)


def on_main(accelerator: Accelerator, action: Callable[[], T]) -> T:
    """What `action` gives on the main process, on every rank; an error of the user is raised on all."""
    outcome: list[tuple[T, None] | tuple[None, UserError] | None] = [None]
    if accelerator.is_main_process:
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
