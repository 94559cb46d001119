"""A login before an MLflow server: a proxy that lets through only requests that carry one of some credentials."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "transfer-encoding", "content-length", "host"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target = ""
    allowed: frozenset[str] = frozenset()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") not in self.allowed:
            return self._answer(401, {"WWW-Authenticate": "Basic"}, b"you are not logged in")
        connection = http.client.HTTPConnection(self.target)
        sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP | {"authorization"}}
        connection.request(self.command, self.path, body or None, sent)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        return self._answer(answer.status, kept, content)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@contextmanager
def login(uri: str, *allowed: str) -> Iterator[str]:
    """Stand before the server at `uri`; yields the address, which takes the Authorization headers in `allowed`."""
    values = {"target": urlsplit(uri).netloc, "allowed": frozenset(allowed)}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Bound", (_Handler,), values))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
