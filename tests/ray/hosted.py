"""A Ray cluster on several hosts for tests: what its nodes know from their environment, and jobs submitted to it."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from namespaces import LAPTOP, LAPTOP_ADDRESS, Hosts
from s3 import CREDENTIALS

ROOT = Path(__file__).parents[2]
HEAD = "head"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "QA_RAY_SERVE_TOKEN")
# One node's own processes are most of what runs here: leave out what nobody reads, and miss a dead node soon.
_NODE = {
    "RAY_enable_metrics_collection": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_COPY = "import sys; from pyarrow.fs import copy_files; copy_files(*sys.argv[1:])"
_WAIT = """
import sys, time
from pyarrow.fs import FileSystem
filesystem, path = FileSystem.from_uri(sys.argv[1])
while not filesystem.get_file_info(path).is_file:
    time.sleep(0.1)
"""


def environment() -> dict[str, str]:
    """Variables of every node and of the laptop, with secrets that nobody else has."""
    own = {name: os.environ[name] for name in ("LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    tools = {os.path.dirname(tool) for tool in (sys.executable, *map(shutil.which, ("ip", "rsync", "ssh"))) if tool}
    path = ":".join([os.path.dirname(sys.executable), *tools, "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    mine = {"PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    mine |= {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    secret = {name: secrets.token_hex(16) for name in SECRETS}
    return own | mine | CREDENTIALS | secret | {"RAY_AUTH_MODE": "token"}


class RemoteCluster:
    """A Ray cluster whose head is the host `head`, with a bucket and an MLflow server on the laptop.

    Attributes:
        hosts: the machines.
        bucket: URI of the bucket.
        mlflow: address of the MLflow server.
    """

    def __init__(self, hosts: Hosts, bucket: str, mlflow: str) -> None:
        self.hosts = hosts
        self.bucket = bucket
        self.mlflow = mlflow
        self.address = f"http://{hosts.addresses[HEAD]}:8265"

    def start(self, *workers: str) -> None:
        """Start Ray on the head, which gives no CPU, and on workers of one CPU."""
        address = self.hosts.addresses[HEAD]
        self._ray_start(HEAD, "--head", "--num-cpus=0", f"--dashboard-host={address}")
        for worker in workers:
            self.join(worker)

    def join(self, worker: str) -> None:
        """Add a node."""
        self._ray_start(worker, f"--address={self.hosts.addresses[HEAD]}:6379", "--num-cpus=1")

    def _ray_start(self, name: str, *options: str) -> None:
        settings = _NODE | {"MLFLOW_TRACKING_URI": self.mlflow, "RAY_JOB_STOP_WAIT_TIME_S": "600"}
        self.hosts.run(name, ["ray", "start", *options, "--object-store-memory=100000000"], env=settings)

    def uri(self, path: str) -> str:
        """URI of something in the bucket."""
        bucket, mark, query = self.bucket.partition("?")
        return f"{bucket}/{path}{mark}{query}"

    def submit(self, *entrypoint: str, options: tuple[str, ...] = (), name: str | None = None) -> subprocess.Popen[str]:
        """Submit a job from the laptop as docs/clusters.md says; its standard output is the job's log."""
        named = ("--submission-id", name) if name else ()
        command = ["ray", "job", "submit", "--address", self.address, "--working-dir", ".", *named, *options, "--"]
        return self.hosts.start(
            LAPTOP, [*command, *entrypoint], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def job(self, *words: str, **options: object) -> str:
        """Run another of Ray's commands about jobs on the laptop: ray job WORDS."""
        return self.hosts.run(LAPTOP, ["ray", "job", words[0], "--address", self.address, *words[1:]], **options)

    def copy(self, source: str, target: str) -> None:
        """Copy a file or folder to the bucket, or from it into a folder."""
        self.hosts.run(LAPTOP, [sys.executable, "-c", _COPY, source, target])

    def wait_for(self, path: str, job: subprocess.Popen[str]) -> None:
        """Wait until there is a file in the bucket; `job` is to write it."""
        waiting = self.hosts.start(LAPTOP, [sys.executable, "-c", _WAIT, self.uri(path)])
        try:
            while waiting.poll() is None:
                assert job.poll() is None, f"the job ended without {path}: {job.communicate()[0][-8000:]}"
                _nap(waiting)
        finally:
            waiting.kill()
            waiting.wait()


def _nap(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return


@contextmanager
def remote_cluster(folder: Path, workers: list[str]) -> Iterator[RemoteCluster]:
    """Make the hosts, and start the servers beside them; Ray is not started yet."""
    with Hosts([HEAD, *workers], environment()) as hosts:
        script = [sys.executable, str(Path(__file__).with_name("services.py")), LAPTOP_ADDRESS, str(folder)]
        services = hosts.start(LAPTOP, script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert services.stdout is not None
        found = json.loads(services.stdout.readline())
        yield RemoteCluster(hosts, found["s3"], found["mlflow"])
