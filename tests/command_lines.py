"""Command lines of jobs, parsed as a user's are."""

from collections.abc import Callable
from typing import TypeVar

from qa_ray.cli import run_job

T = TypeVar("T")


def parser(options: type[T]) -> Callable[..., T]:
    """What turns the words of a command line into a job's options."""

    def parse(*words: str) -> T:
        seen: list[T] = []
        assert run_job(options, lambda parsed: str(seen.append(parsed)), words) == 0
        return seen[0]

    return parse
