"""Command lines of jobs, parsed as a user's are."""

from collections.abc import Callable
from typing import TypeVar

from qa_ray.cli.arguments import parse_options

T = TypeVar("T")


def parser(options: type[T]) -> Callable[..., T]:
    """What turns the words of a command line into a job's options."""

    def parse(*words: str) -> T:
        return parse_options(options, words, "job")

    return parse
