"""What the API asks of those who hold the model, and the words for what goes wrong on the way."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from qa_ray.schema import Answered


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on its way to the model."""

    question: str
    contexts: str | list[str]
    settings: dict[str, Any]
    """Of the call, as QuestionAnswerer takes them."""
    windows: bool


class Batch(NamedTuple):
    """What was answered together."""

    num_questions: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model made of it."""

    answers: list[Answered]
    model: str
    version: str | None
    num_windows: int
    windows: list[tuple[int, int, int]] | None
    """Place of the context, first character, and place after the last; None if they were not asked for."""
    batch: Batch | None
    """What was answered together, told once."""


class Refused(Exception):  # noqa: N818  # it is an error of the caller more often than of the service
    """A request that is not answered.

    Attributes:
        status: HTTP's number for it.
        reason: a word for the metrics.
        message: what callers read.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(status, reason, message)
        self.status, self.reason, self.message = status, reason, message


class Service(Protocol):
    """Answers questions, somewhere."""

    async def ask(self, asked: Asked) -> Reply:
        """Answer a question; raises Refused where it cannot be."""

    async def describe(self) -> dict[str, Any]:
        """The model that answers; raises Refused where none does."""
