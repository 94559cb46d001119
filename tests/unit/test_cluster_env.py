"""cluster.env as the commands of cluster.yaml read it on a node, and as kubectl reads it: the same, and literally."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_file import ROOT, cluster_file

FILE = r"""
# settings
MLFLOW_TRACKING_URI=http://mlflow:5000/?a=b#c
DOLLAR=a$HOME&b; touch owned
BACKTICKS=`touch owned` $(touch owned) | tee owned
SINGLE='quoted'
DOUBLE="two words"
BACKSLASH=a\nb\\c\
HASH=#1 # no comment
EQUALS==a==b=
<>INDENTED=  spaces at both ends<>
UMLAUT=Schlüssel 🔑 ключ
EMPTY=
GLOB=* ~ ?
  # indented comment

_9=last""".replace("<>", " \t ")
VALUES = {
    "MLFLOW_TRACKING_URI": "http://mlflow:5000/?a=b#c",
    "DOLLAR": "a$HOME&b; touch owned",
    "BACKTICKS": "`touch owned` $(touch owned) | tee owned",
    "SINGLE": "'quoted'",
    "DOUBLE": '"two words"',
    "BACKSLASH": "a\\nb\\\\c\\",
    "HASH": "#1 # no comment",
    "EQUALS": "=a==b=",
    "INDENTED": "  spaces at both ends \t ",
    "UMLAUT": "Schlüssel 🔑 ключ",
    "EMPTY": "",
    "GLOB": "* ~ ?",
    "_9": "last",
}
ENDS = {"lines": FILE, "windows": "\ufeff" + FILE.lstrip("\n").replace("\n", "\r\n"), "spaces": f"\u3000\u00a0\n{FILE}"}
# What Ray's launcher would start on a node; it tells its environment and arguments instead.
RAY = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["HOME"] + "/told.json", "w") as file:
    json.dump([dict(os.environ), sys.argv[1:]], file)
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's home, with the files that cluster.yaml brings there and a `ray` that only tells."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "ray").write_text(RAY)
    (home / "bin" / "ray").chmod(0o755)
    for target, source in yaml.safe_load(cluster_file())["file_mounts"].items():
        place = home / target.removeprefix("~/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_file():
            shutil.copy(ROOT / source, place)
    return home


def start(node: Path, role: str, content: bytes) -> subprocess.CompletedProcess[str]:
    """Run the commands by which cluster.yaml starts Ray there, one after another, as the launcher does."""
    (node / "qa_ray" / "cluster.env").write_bytes(content)
    path = f"{node / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"HOME": str(node), "PATH": path, "RAY_HEAD_IP": "10.0.0.1", "RAY_AUTH_MODE": "disabled"}
    for command in yaml.safe_load(cluster_file())[f"{role}_start_ray_commands"]:
        done = subprocess.run(
            ["bash", "-c", command], cwd=node, env=environment, capture_output=True, text=True, check=False
        )
    return done


@pytest.mark.parametrize("role", ["head", "worker"])
@pytest.mark.parametrize("ends", ENDS)
def test_node_takes_each_value_as_it_stands(role: str, ends: str, node: Path) -> None:
    before = {path.name for path in node.iterdir()}
    done = start(node, role, ENDS[ends].encode())
    assert done.returncode == 0, done.stderr
    environment, words = json.loads((node / "told.json").read_text())
    assert {name: environment.get(name) for name in VALUES} == VALUES
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_JOB_STOP_WAIT_TIME_S"] == "600"
    assert words[0] == "start"
    assert {"head": "--head", "worker": "--address=10.0.0.1:6379"}[role] in words
    assert f"--object-spilling-directory={node}/qa_ray/spill" in words
    # Nothing of the file was run.
    assert {path.name for path in node.iterdir()} - before == {"told.json"}


def test_clusters_lock_is_not_in_the_files_hands(node: Path) -> None:
    start(node, "head", b"RAY_AUTH_MODE=disabled\n")
    environment, _ = json.loads((node / "told.json").read_text())
    assert environment["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("ends", ENDS)
def test_kubectl_reads_the_same(ends: str, tmp_path: Path) -> None:
    assert read_by_kubectl(ENDS[ends].encode(), tmp_path) == VALUES


def read_by_kubectl(content: bytes, place: Path) -> Any:
    """The values of the secret that kubectl makes, without a cluster; None if it refuses the file."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    (place / "cluster.env").write_bytes(content)
    words = ["create", "secret", "generic", "qa-ray", "--from-env-file=cluster.env", "--dry-run=client", "-o", "json"]
    environment = os.environ | {"HOME": str(place), "KUBECONFIG": str(place / "none")}
    done = subprocess.run([kubectl, *words], cwd=place, env=environment, capture_output=True, text=True, check=False)
    data = json.loads(done.stdout)["data"] if done.returncode == 0 else None
    return data and {name: base64.b64decode(value).decode() for name, value in data.items()}


MISTAKES = {
    "no sign": (b"A=1\nc4n4ry\n", "line 2 has no '='"),
    "name alone": (b"HOME\n", "line 1 has no '='"),
    "export": (b"export A=c4n4ry\n", "line 1: before '=' stands no name"),
    "space before the sign": (b"A =c4n4ry\n", "line 1: before '=' stands no name"),
    "digit": (b"\n9A=c4n4ry\n", "line 2: before '=' stands no name"),
    "no name": (b"=c4n4ry\n", "line 1: before '=' stands no name"),
    "twice": (b"A=1\n# x\nA=c4n4ry\n", "line 3 sets a name for the second time"),
    "encoding": (b"A=c4n4ry\xff\n", "line 1 is not UTF-8"),
    "nul": (b"A=c4n4ry\0\n", "line 1 holds a NUL"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_by_its_line_and_without_what_stands_there(mistake: str, node: Path) -> None:
    content, words = MISTAKES[mistake]
    done = start(node, "worker", content)
    assert done.returncode == 1
    assert f"cluster.env: {words}" in done.stderr
    assert "c4n4ry" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mistake", ["export", "space before the sign", "digit", "no name", "twice", "encoding"])
def test_kubectl_refuses_what_nodes_refuse(mistake: str, tmp_path: Path) -> None:
    assert read_by_kubectl(MISTAKES[mistake][0], tmp_path) is None


def test_file_that_is_not_there_is_named(node: Path) -> None:
    script = [sys.executable, str(ROOT / "cluster_env.py"), str(node / "gone"), "true"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"error: {node}/gone: No such file or directory\n")
