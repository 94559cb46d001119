"""A copy of the model on Ray Serve: prepares each question, and answers those that wait together."""

import asyncio
import logging
from typing import Any

from qa_ray.answers import QuestionAnswerer
from qa_ray.answers.prepared import Prepared
from qa_ray.errors import ModelError, UserError
from qa_ray.runs.process import set_up_process
from qa_ray.serving.batching import Batcher
from qa_ray.serving.options import ServeOptions
from qa_ray.serving.served_model import ServedModel
from qa_ray.serving.service import Asked, Refused, Reply

logger = logging.getLogger(__name__)


class Replica:
    """Answers questions, with whichever version of the model the alias names."""

    def __init__(self, options: ServeOptions, *, use_gpu: bool, num_threads: int) -> None:
        """Open the model.

        Raises:
            UserError: it cannot be opened.
        """
        set_up_process(num_threads)
        device = "cuda" if use_gpu else "cpu"

        def open_answerer(source: str) -> QuestionAnswerer:
            return QuestionAnswerer.from_pretrained(
                source,
                revision=options.revision,
                device=device,
                max_tokens=options.max_tokens_per_device,
                precision=options.precision,
                trust_remote_code=options.trust_remote_code,
            )

        self._served = ServedModel(options.model, open_answerer, options.watch_s)
        self._batcher = Batcher()

    async def answer(self, asked: Asked) -> Reply | Refused:
        """Answer a question; what is refused is returned, since Ray would log the traceback of what is raised."""
        model = self._served.current
        try:
            prepared: Prepared = await asyncio.to_thread(
                model.answerer.prepare, asked.question, asked.contexts, **asked.settings
            )
            found = await self._batcher.answer(model.answerer, prepared)
        except ModelError as error:
            logger.error("%s", error)
            return Refused(500, "model", f"the model cannot answer: {error}")
        except UserError as error:
            return Refused(422, "invalid", str(error).removeprefix("input: "))
        return Reply(
            answers=found.answers,
            model=model.name,
            version=model.version,
            num_windows=prepared.num_windows,
            windows=prepared.window_spans() if asked.windows else None,
            batch=found.batch,
        )

    async def describe(self) -> dict[str, Any]:
        """The model that answers at present."""
        return {**self._served.current.describe(), "trouble": self._served.trouble}

    def check_health(self) -> None:
        """Tell Ray Serve to replace a replica that no longer answers."""
        if not self._batcher.alive:
            raise RuntimeError("the thread that answers has ended")
