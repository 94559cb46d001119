"""Requests that come one by one, answered together: as many at a time as hold so many tokens.

The model runs in a thread of its own. While it does, further requests gather; what has waited longest goes first.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from qa_ray.answers import QuestionAnswerer
from qa_ray.answers.prepared import Prepared
from qa_ray.errors import UserError
from qa_ray.schema import Answered
from qa_ray.serving.service import Batch

_FORWARD_PASSES = 2
"""So many of them at a time: their windows are sorted by length, which leaves little padding."""


class BatchedAnswer(NamedTuple):
    """The answers to one question, best first."""

    answers: list[Answered]
    batch: Batch | None
    """Told by the first of those that were answered together."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A question that waits for the model, and who waits for its answer."""

    answerer: QuestionAnswerer
    prepared: Prepared
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[BatchedAnswer]

    def tell(self, result: BatchedAnswer | BaseException) -> None:
        """Hand the result over to the event loop, unless nobody waits any more."""

        def deliver() -> None:
            if self.future.done():
                return
            if isinstance(result, BaseException):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)

        self.loop.call_soon_threadsafe(deliver)


class Batcher:
    """Collects prepared questions, and lets their answerer answer them in a thread."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="qa_ray-answer", daemon=True)
        self._thread.start()

    async def answer(self, answerer: QuestionAnswerer, prepared: Prepared) -> BatchedAnswer:
        """Wait for the answers; who is cancelled meanwhile takes no time of the model's.

        Raises:
            UserError: the model cannot answer this question.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(answerer, prepared, loop, loop.create_future())
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify()
        return await waiting.future

    @property
    def alive(self) -> bool:
        """Whether the thread still works."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                batch = self._take()
            if batch:
                _answer(batch)

    def _take(self) -> list[_Waiting]:
        """The next questions of one answerer: at least one, and as many more as hold the tokens together."""
        while self._waiting and self._waiting[0].future.cancelled():
            self._waiting.popleft()
        if not self._waiting:
            return []
        first = self._waiting[0]
        most = first.answerer.tokens_at_once * _FORWARD_PASSES
        taken: list[_Waiting] = []
        size = 0
        while self._waiting:
            item = self._waiting[0]
            if taken and (item.answerer is not first.answerer or size + item.prepared.num_tokens > most):
                break
            self._waiting.popleft()
            if not item.future.cancelled():
                taken.append(item)
                size += item.prepared.num_tokens
        return taken


def _answer(batch: Sequence[_Waiting]) -> None:
    """Answer a batch; where the model fails on one of them, the others do not suffer."""
    try:
        found = batch[0].answerer.answer([item.prepared for item in batch])
    except UserError as error:
        if len(batch) == 1:
            batch[0].tell(error)
            return
        middle = len(batch) // 2
        _answer(batch[:middle])
        _answer(batch[middle:])
    # Whatever it is, somebody waits: the thread must go on, and tell them.
    except Exception as error:
        for item in batch:
            item.tell(error)
    else:
        told = Batch(len(batch), sum(item.prepared.num_tokens for item in batch))
        for number, (item, answers) in enumerate(zip(batch, found, strict=True)):
            item.tell(BatchedAnswer(answers, None if number else told))
