"""The service without Ray: its application over ASGI, and a replica in this process."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2

from qa_ray.serving.metrics import ServiceMetrics
from qa_ray.serving.options import ServeOptions
from qa_ray.serving.replica import Replica
from qa_ray.serving.service import Asked, Refused, Reply
from qa_ray.serving.web import make_app

QUESTION, CONTEXT = "Who built the bridge?", "Charles built the bridge in the town of Prague."
ASK = {"question": QUESTION, "context": CONTEXT}


class Direct:
    """A service whose one replica is here."""

    def __init__(self, options: ServeOptions) -> None:
        self.replica = Replica(options, use_gpu=False, num_threads=1)

    async def ask(self, asked: Asked) -> Reply:
        found = await self.replica.answer(asked)
        if isinstance(found, Refused):
            raise found
        return found

    async def describe(self) -> dict[str, Any]:
        return await self.replica.describe()


class Client:
    """Sends requests to an application in this process, as a caller at some address."""

    def __init__(
        self, service: Any, options: ServeOptions, *, token: str | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.metrics = ServiceMetrics()
        self.app = make_app(service, options, self.metrics, token)
        self._host = host

    def send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        return asyncio.run(self.sent(method, path, **request))

    async def sent(self, method: str, path: str, **request: Any) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.app, client=(self._host, 1234))
        async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, **request)

    def post(self, path: str, content: Any, **request: Any) -> httpx2.Response:
        """Post a value as JSON, or bytes as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"content-type": "application/json"} | request.pop("headers", {})
        return self.send("POST", path, content=body, headers=headers, **request)

    def counted(self, name: str) -> float:
        """The sum of a counter over its labels."""
        lines = self.metrics.text().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def options_for(folder: Path, **given: Any) -> ServeOptions:
    """Options of a service of a model on a CPU."""
    return ServeOptions(model=str(folder), use_gpu=False, **given)
