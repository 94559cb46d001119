"""cluster.yaml launched over ssh with Ray's launcher, as docs/clusters.md says, on hosts that are namespaces."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_file import ROOT, own_machines
from hosted import HEAD, environment
from namespaces import LAPTOP, Hosts, why_impossible

pytestmark = pytest.mark.long

WORKERS = ["worker1", "worker2"]
# The new one starts one worker of two on machines of one's own: Ray 2.60 does not tell it of the head.
OLD_AUTOSCALER = {"RAY_UP_enable_autoscaler_v2": "0"}
SECRET = "a$HOME&b `c` 'd' \"e\" #f \\g"
TUNNEL = "http://127.0.0.1:8265"
_SSHD = """
HostKey {key}
AuthorizedKeysFile {key}.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A head and two workers that answer to ssh; what they know of the cluster comes from cluster.yaml."""
    sshd, missing = (
        shutil.which("sshd", path="/usr/sbin:/usr/local/sbin"),
        [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None],
    )
    reason = why_impossible()
    if reason or missing or sshd is None:
        pytest.skip(reason or f"Ray's launcher needs {', '.join(missing) or 'sshd'} (Debian: openssh-server, rsync)")
    place = tmp_path_factory.mktemp("ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "key")], check=True)
    (place / "sshd_config").write_text(_SSHD.format(key=place / "key"))
    known = environment()
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        del known[name]
    with Hosts([HEAD, *WORKERS], known) as hosts:
        for name in (HEAD, *WORKERS):
            # Neither settings nor the checkout's environment: only where programs are, as a login gives it.
            (hosts.home(name) / ".bashrc").write_text(f"export PATH='{known['PATH']}'\n")
            hosts.start(name, [str(sshd), "-D", "-f", str(place / "sshd_config")], env={"PATH": known["PATH"]})
        deploy = hosts.home(LAPTOP) / "qa_ray"
        deploy.mkdir()
        shutil.copy(place / "key", hosts.home(LAPTOP) / "key")
        shutil.copy(ROOT / "cluster_env.py", deploy)
        # The last line is for the test alone: workers that have lost their head wait for it a minute.
        lines = ["MLFLOW_TRACKING_URI=http://laptop:5000", f"HF_TOKEN={SECRET}"]
        lines += ["RAY_gcs_rpc_server_reconnect_timeout_s=5"]
        (deploy / "cluster.env").write_text("\n".join(lines) + "\n")
        first, second = (hosts.addresses[name] for name in WORKERS)
        values = {"HEAD": hosts.addresses[HEAD], "WORKER_1": first, "WORKER_2": second, "USER": "root"}
        text = own_machines(**values, **{"~/.ssh/id_ed25519": str(hosts.home(LAPTOP) / "key")})
        (deploy / "cluster.yaml").write_text(text)
        yield hosts


def launcher(hosts: Hosts, *words: str) -> str:
    folder = hosts.home(LAPTOP) / "qa_ray"
    return hosts.run(LAPTOP, ["ray", *words], cwd=folder, stdin=subprocess.DEVNULL, env=OLD_AUTOSCALER)


def raylets(hosts: Hosts, name: str) -> int:
    """Number of Ray's node processes on a host."""
    return len(re.findall(r"raylet/raylet ", hosts.run(name, ["ps", "-ax", "-o", "args="])))


@pytest.fixture(scope="module")
def launched(hosts: Hosts) -> Iterator[str]:
    """What was seen of the launch; afterwards a tunnel leads to the head."""
    hosts.run(LAPTOP, ["ray", "get-auth-token", "--generate"])
    said = launcher(hosts, "up", "--yes", "cluster.yaml")
    command = ["ray", "dashboard", "cluster.yaml"]
    tunnel = hosts.start(
        LAPTOP, command, cwd=hosts.home(LAPTOP) / "qa_ray", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    script = "import sys, time, socket\nwhile socket.socket().connect_ex(('127.0.0.1', 8265)): time.sleep(0.2)"
    hosts.run(LAPTOP, [sys.executable, "-c", script])
    yield said
    tunnel.terminate()


def test_cluster_is_launched_over_ssh_runs_a_job_and_is_taken_down(hosts: Hosts, launched: str, tmp_path: Path) -> None:
    token = (hosts.home(LAPTOP) / ".ray" / "auth_token").read_text()
    assert token not in launched
    assert SECRET not in launched
    with_token = {"RAY_AUTH_MODE": "token"}
    # A job of the smallest kind, that needs both workers and tells what reached them.
    script = (
        "import json, os, ray; ray.init(log_to_driver=False)\n"
        "tell = ray.remote(num_cpus=1, scheduling_strategy='SPREAD')(lambda: (os.uname().nodename, "
        "os.environ['MLFLOW_TRACKING_URI'], os.environ['RAY_JOB_STOP_WAIT_TIME_S'], os.environ['HF_TOKEN']))\n"
        "found = set()\n"
        "while len(found) < 2: found |= set(ray.get([tell.remote() for _ in range(8)]))\n"
        "print('told', json.dumps(sorted(found)))"
    )
    submit = ["ray", "job", "submit", "--address", TUNNEL, "--working-dir", ".", "--", "python", "-c", script]
    said = hosts.run(LAPTOP, submit, cwd=ROOT, env=with_token)
    (told,) = re.findall(r"^told (.*)$", said, re.MULTILINE)
    assert json.loads(told) == [[name, "http://laptop:5000", "600", SECRET] for name in WORKERS]
    with pytest.raises(AssertionError, match="uthentication"):
        hosts.run(LAPTOP, ["ray", "job", "list", "--address", TUNNEL], env={**with_token, "RAY_AUTH_TOKEN": "0" * 32})
    # The dashboard is reached through the tunnel only.
    script = "import socket, sys; sys.exit(socket.socket().connect_ex((sys.argv[1], 8265)) == 0)"
    hosts.run(LAPTOP, [sys.executable, "-c", script, hosts.addresses[HEAD]])
    assert [raylets(hosts, name) for name in (HEAD, *WORKERS)] == [1, 1, 1]
    launcher(hosts, "down", "--yes", "cluster.yaml")
    assert raylets(hosts, HEAD) == 0
    # Workers end once they have missed the head for long enough.
    while any(raylets(hosts, name) for name in WORKERS):
        time.sleep(1)
