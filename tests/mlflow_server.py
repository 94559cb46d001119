"""An MLflow tracking server that a test can stop, kill and start again on its port."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class MlflowServer:
    """A server with its SQLite file and its artifacts in a folder.

    Attributes:
        uri: its address.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        """Choose a free port; nothing is started."""
        self._folder = folder
        self._address = address
        with socket.socket() as probe:
            probe.bind((address, 0))
            self._port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://{address}:{self._port}"

    def start(self) -> "MlflowServer":
        """Start it if it does not run, and wait until it answers."""
        if self._process and self._process.poll() is None:
            return self
        command = [sys.executable, "-m", "mlflow", "server", "--host", self._address, "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | _ENVIRONMENT, start_new_session=True
            )
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.1)
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the server and its workers, and wait until they are gone."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, how)
        self._process.wait()
        while self._answers():
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
