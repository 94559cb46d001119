"""What stands before the API: who may ask, how much they may send, and what a browser may do with the answer."""

import asyncio
import hmac
import time
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qa_ray.serving.metrics import ServiceMetrics
from qa_ray.serving.options import TOKEN, digest, is_loopback
from qa_ray.serving.service import Refused

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_GONE = 499
"""What nginx, and those who came after it, write down for a caller that did not wait."""
_OPEN_PATHS = ("/page/", "/docs", "/openapi.json", "/health", "/ready")
"""Need no token: what the pages are made of, and what balancers ask."""


class Guard:
    """ASGI middleware: token, size and time of what is sent, headers of what is answered, and counting."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token_digest: str | None,
        max_bytes: int,
        timeout_s: float,
        metrics: ServiceMetrics,
        route_of: Callable[[str], str],
    ) -> None:
        """Guard `app`; `route_of` names a path in the metrics, where what callers make up must not grow them."""
        self._app = app
        self._token_digest = token_digest
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            # There are no websockets here, and starting and stopping is the application's own affair.
            await self._app(scope, receive, send)
            return
        # As long as nothing is answered: the caller may go away.
        begin, status = time.perf_counter(), _GONE

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        try:
            self._require_known(scope)
            body = await self._read(scope, receive)
        except Refused as refused:
            self._metrics.refused.labels(refused.reason).inc()
            headers = {"www-authenticate": "Bearer"} if refused.status == 401 else None
            response = JSONResponse({"error": refused.message}, refused.status, headers)
            await response(scope, receive, dressed)
        else:
            await self._app(scope, _replay(body, receive), dressed)
        finally:
            path = self._route_of(scope["path"])
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - begin)

    def _require_known(self, scope: Scope) -> None:
        """Refuse callers without the token and, where there is none, those from other machines."""
        path, method = scope["path"], scope["method"]
        if path.startswith(_OPEN_PATHS) or (path == "/" and method in ("GET", "HEAD")):
            return
        if self._token_digest is None:
            caller = scope.get("client")
            if caller is not None and not is_loopback(caller[0]):
                words = f"this service has no token, and answers its own machine alone: set {TOKEN} where it starts"
                raise Refused(403, "no_token", words)
            return
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, token = given.partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(digest(token.strip()), self._token_digest):
            raise Refused(401, "token", "send the service's token: Authorization: Bearer TOKEN")

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, as long as it is neither too large nor too slow."""
        headers = dict(scope["headers"])
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
        if encoding not in ("", "identity"):
            raise Refused(415, "encoding", f"Content-Encoding {encoding!r} is not taken: send the JSON as it is")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._collect(receive)
        except TimeoutError:
            raise Refused(408, "slow", f"the request was not whole after {self._timeout_s:g} s") from None

    async def _collect(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(_GONE, "gone", "the caller went away before the request was whole")
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_bytes:
                raise self._too_large()
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    def _too_large(self) -> Refused:
        return Refused(413, "size", f"the request is larger than the {self._max_bytes:,} bytes that are taken")


def _replay(body: bytes, receive: Receive) -> Receive:
    """What the application reads: the body at once, and then what else comes, such as the caller's going away."""
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read
