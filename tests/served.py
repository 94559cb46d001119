"""The service as a process of its own, as a user starts it, and callers that keep it busy."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).parents[1] / "jobs" / "serve.py"


class ServiceProcess:
    """`jobs/serve.py`, on a free port.

    Attributes:
        url: its address.
        log: what it said besides.
    """

    def __init__(self, model: str, folder: Path, *words: str, **environment: str) -> None:
        """Start it, and wait until it answers."""
        self.log = folder / "serve.log"
        command = [sys.executable, str(_SCRIPT), model, "--port", "0", "--use-gpu", "False", *words]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=os.environ | environment
            )
        assert self._process.stdout
        self.said = self._process.stdout.readline()
        assert self.said.startswith("http://"), self.log.read_text()
        self.url = self.said.split()[0]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self._process.send_signal(how)
        return self._process.wait()

    def __enter__(self) -> "ServiceProcess":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self.stop()

    def get(self, path: str) -> Any:
        """Read JSON."""
        return json.loads(fetch(f"{self.url}{path}")[1])

    def post(self, path: str, content: object) -> tuple[int, Any]:
        """Send JSON; HTTP's number and the JSON that comes back."""
        status, body = fetch(f"{self.url}{path}", json.dumps(content).encode())
        return status, json.loads(body)


def fetch(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """HTTP's number, and what came."""
    request = urllib.request.Request(url, body, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Callers:
    """Threads that ask one question after another, and keep what they are told."""

    def __init__(self, number: int, ask: Callable[[], tuple[int, Any]]) -> None:
        self.found: list[tuple[int, Any]] = []
        self.errors: list[BaseException] = []
        self._ask = ask
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(number)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def answered(self, more: int) -> None:
        """Wait until so many more are answered, or one of the callers failed."""
        wanted = len(self.found) + more
        while len(self.found) < wanted and not self.errors:
            self._ended.wait(0.02)

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                self.found.append(self._ask())
            except BaseException as error:
                self.errors.append(error)
                return
