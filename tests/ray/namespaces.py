"""Hosts for tests of a cluster: namespaces of this machine, joined by a bridge.

Every host has its own address, processes, hostname, home, /run, /dev/shm and temporary folders; all other files are
shared. The hosts lie within namespaces of their own, the laptop's, from which jobs are submitted. Their first process,
this script, ends when the process that started it does, however that ends; the kernel then takes back every process,
address and mount that is left in them. So nothing stays behind, and two tests cannot meet.

namespaces.py PLACE NAME...    makes the hosts, says so, and keeps them until its standard input is closed
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

LAPTOP, LAPTOP_ADDRESS = "laptop", "10.0.0.254"
_SPACES = ["--net", "--pid", "--mount", "--uts", "--ipc"]
_UNSHARE = ["unshare", *_SPACES, "--fork", "--kill-child", "--mount-proc"]
# Where Ray's launcher keeps its ssh connections.
_SSH_SOCKETS = f"/tmp/ray_ssh_{hashlib.sha256(b'root').hexdigest()[:10]}"
_OWN_FOLDERS = ["/dev/shm", "/run", "/var/log", "/tmp/ray", _SSH_SOCKETS]


def address_of(number: int) -> str:
    """Address of a host by its place in the list of names."""
    return f"10.0.0.{number + 1}"


def why_impossible() -> str | None:
    """Say why hosts cannot be made here; None if they can."""
    missing = [name for name in ("ip", "unshare", "nsenter", "mount") if shutil.which(name) is None]
    if missing:
        return f"hosts need {', '.join(missing)} (Debian: iproute2, util-linux, mount)"
    attempt = (
        "mount -t tmpfs tmpfs /run && ip link add name a0 type bridge && ip link add name a1 type veth peer name a2"
    )
    tried = subprocess.run(["unshare", *_SPACES, "--fork", "sh", "-c", attempt], capture_output=True, text=True)
    return f"hosts need root and CAP_SYS_ADMIN, CAP_NET_ADMIN: {tried.stderr.strip()}" if tried.returncode else None


class Hosts:
    """Hosts by name, and the laptop.

    Attributes:
        addresses: of every host.
        environment: variables of each command that is run on a host or on the laptop.
    """

    def __init__(self, names: Sequence[str], environment: Mapping[str, str]) -> None:
        """Nothing is made yet."""
        self.addresses = {name: address_of(number) for number, name in enumerate(names)}
        self.environment = dict(environment)
        # A socket's path may have 107 characters.
        self._place = Path(tempfile.mkdtemp(prefix="qa_ray-hosts-", dir="/tmp"))
        self._pids: dict[str, int] = {}

    def __enter__(self) -> Self:
        script = [sys.executable, __file__, str(self._place), *self.addresses]
        self._keeper = subprocess.Popen(
            [*_UNSHARE, *script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests, which then close its input
        )
        assert self._keeper.stdout is not None
        self._pids = json.loads(self._keeper.stdout.readline())
        (self._laptop,) = psutil.Process(self._keeper.pid).children()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()

    def home(self, name: str) -> Path:
        """Home folder of a host, or of the laptop."""
        return self._place / "homes" / name

    def start(self, name: str, command: Sequence[str], **options: object) -> subprocess.Popen[str]:
        """Start a command on a host or on the laptop; `options` are Popen's, `env` comes on top of `environment`."""
        own = {"HOME": str(self.home(name)), "TMPDIR": str(self._place / "tmp")}
        own |= self.environment | dict(options.pop("env", {}))  # type: ignore[call-overload]
        enter = self._enter(name, options.pop("cwd", os.getcwd()))
        return subprocess.Popen([*enter, *command], text=True, env=own, **options)  # type: ignore[call-overload]

    def run(self, name: str, command: Sequence[str], **options: object) -> str:
        """Run a command to its end and return what it said on both channels; it must succeed."""
        # No pipe: what the command leaves behind, such as an ssh connection for the next one, would keep it open.
        with tempfile.TemporaryFile("w+") as output:
            code = self.start(name, command, stdout=output, stderr=subprocess.STDOUT, **options).wait()
            output.seek(0)
            said = output.read()
        assert code == 0, f"{' '.join(command)} on {name}: exit code {code}\n{said[-8000:]}"
        return said

    def cut_off(self, name: str) -> None:
        """Pull a host's network cable."""
        self.run(LAPTOP, ["ip", "link", "set", name, "down"])

    def _enter(self, name: str, folder: object) -> list[str]:
        laptop = _nsenter(self._laptop.pid, folder)
        # A host's number counts among the laptop's processes.
        return laptop if name == LAPTOP else laptop + _nsenter(self._pids[name], folder)


def _nsenter(pid: int, folder: object) -> list[str]:
    return ["nsenter", "--target", str(pid), *_SPACES, f"--wd={folder}", "--"]


def _keep(place: Path, names: list[str]) -> None:
    """Make the laptop and the hosts, and keep them."""
    _settle(place, LAPTOP, names)
    _call("ip link set lo up")
    _call("ip link add bridge type bridge")
    _call(f"ip address add {LAPTOP_ADDRESS}/24 dev bridge")
    _call("ip link set bridge up")
    pids = {}
    for name in names:
        host = subprocess.Popen(
            [*_UNSHARE, sys.executable, __file__, "--host", str(place), name, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdout.readline()
        (child,) = psutil.Process(host.pid).children()
        pids[name] = child.pid
        _call(f"ip link add {name} type veth peer name eth0 netns {child.pid}")
        _call(f"ip link set {name} master bridge up")
        host.stdin.write(b"\n")
        host.stdin.flush()
        host.stdout.readline()
    print(json.dumps(pids), flush=True)
    _reap_children()
    sys.stdin.read()
    os.kill(-1, signal.SIGKILL)  # all that lives in these namespaces, but for this process
    _call(f"umount --lazy {place / 'tmp'}")
    shutil.rmtree(place, ignore_errors=True)


def _be_host(place: Path, name: str, names: list[str]) -> None:
    """Be the first process of a host: settle, wait for the cable, take the address, and reap until the end."""
    _settle(place, name, names)
    print("settled", flush=True)
    sys.stdin.readline()
    _call("ip link set lo up")
    _call(f"ip address add {address_of(names.index(name))}/24 dev eth0")
    _call("ip link set eth0 up")
    # Programs find out their own address by asking which way leads out.
    _call(f"ip route add default via {LAPTOP_ADDRESS}")
    print("ready", flush=True)
    _reap_children()
    while True:
        signal.pause()


def _settle(place: Path, name: str, names: list[str]) -> None:
    """Give this mount namespace folders of its own, a home for root, a hostname, and the addresses of all hosts."""
    home, files = place / "homes" / name, place / "etc" / name
    for folder in (home, files, place / "tmp", *map(Path, _OWN_FOLDERS)):
        folder.mkdir(parents=True, exist_ok=True)
    for folder in [*_OWN_FOLDERS, str(place / "tmp")]:
        _call(f"mount -t tmpfs tmpfs {folder}")
    Path("/run/sshd").mkdir()
    _call(f"hostname {name}")
    lines = ["127.0.0.1 localhost", f"{LAPTOP_ADDRESS} {LAPTOP}"]
    lines += [f"{address_of(number)} {host}" for number, host in enumerate(names)]
    (files / "hosts").write_text("\n".join(lines) + "\n")
    users = Path("/etc/passwd").read_text()
    (files / "passwd").write_text(re.sub("^(root:.*):[^:]+:([^:]+)$", rf"\1:{home}:\2", users, flags=re.MULTILINE))
    for file in ("hosts", "passwd"):
        _call(f"mount --bind {files / file} /etc/{file}")


def _call(command: str) -> None:
    subprocess.run(command.split(), check=True)


def _reap_children() -> None:
    """Orphans become children of a namespace's first process; let the kernel forget them when they end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


if __name__ == "__main__":
    if sys.argv[1] == "--host":
        _be_host(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        _keep(Path(sys.argv[1]), sys.argv[2:])
