"""What callers talk to on Ray Serve: the API and the page, and the questions' way to a replica and back."""

import asyncio
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from qa_ray.serving.guard import Guard
from qa_ray.serving.metrics import ServiceMetrics
from qa_ray.serving.options import ServeOptions
from qa_ray.serving.service import Asked, Refused, Reply
from qa_ray.serving.web import make_app

_LOST = (RayActorError, ReplicaUnavailableError)
"""What is raised where a replica dies with a question: another one is asked."""
_PAUSE_S = 0.05
_DRAIN_S = 0.05


class Gateway:
    """Answers HTTP; a question that is lost with its replica is asked again of another."""

    def __init__(self, replicas: DeploymentHandle, options: ServeOptions, token_digest: str | None) -> None:
        self._replicas = replicas
        self._options = options
        self._token_digest = token_digest
        self._metrics = ServiceMetrics()
        self._stopping = False
        self._taken = 0

    def __serve_build_asgi_app__(self) -> Guard:
        """The application, which Ray Serve asks for once the gateway is made."""
        return make_app(self, self._options, self._metrics, self._token_digest)

    async def ask(self, asked: Asked) -> Reply:
        """Have a replica answer.

        Raises:
            Refused: it cannot be answered, or not in time, or the service is being stopped.
        """
        if self._stopping:
            raise Refused(503, "stopping", "the service is being stopped")
        self._taken += 1
        try:
            found = await self._call("answer", asked)
        finally:
            self._taken -= 1
        if isinstance(found, Refused):
            raise found
        return found  # type: ignore[no-any-return]

    async def describe(self) -> dict[str, Any]:
        """The model of one of the replicas.

        Raises:
            Refused: none answers in time.
        """
        return await self._call("describe")  # type: ignore[no-any-return]

    async def drain(self) -> None:
        """Take no more questions, and wait until those that were taken are answered."""
        self._stopping = True
        while self._taken:
            await asyncio.sleep(_DRAIN_S)

    async def _call(self, method: str, *args: object) -> Any:
        """Call a replica until one answers, within the time that a request may take."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                while True:
                    response = getattr(self._replicas, method).remote(*args)
                    try:
                        return await response
                    except _LOST:
                        self._metrics.retries.inc()
                        await asyncio.sleep(_PAUSE_S)
                    except asyncio.CancelledError:
                        response.cancel()
                        raise
        except TimeoutError:
            raise Refused(504, "time", f"there was no answer within {self._options.timeout_s:g} s") from None
        except DeploymentUnavailableError as error:
            raise Refused(503, "unavailable", "no replica of the model runs") from error
