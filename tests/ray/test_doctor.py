"""The preflight on a local cluster, by its real command line, and on two nodes that differ; nothing stays behind."""

import math
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray_runs import NAMES, command, prepare, write_squad

import qa_ray
from qa_ray.cli import main
from qa_ray.doctor.nodes import Nodes

ROOT = Path(__file__).parents[2]
Rows = dict[str, tuple[str, str]]

NEEDED = {
    "nodes", "clocks", "versions", "code", "open files", "workers", "precision", "run", "storage", "disk", "model",
    "memory", "training data", "validation", "object store", "tracking",
}  # fmt: skip


def rows_of(printed: str) -> Rows:
    """Status and text of each check, by its name."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        head = re.fullmatch(r"(passed|warning|failed|skipped) +(\S.{13}) (.*)", line)
        if head:
            found[head[2].strip()] = [head[1], head[3]]
        elif found and line.startswith(" " * 24):
            found[list(found)[-1]][1] += " " + line.strip()
    return {name: (status, text) for name, (status, text) in found.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("doctor"))


@pytest.fixture
def examine(
    ray_cluster: None, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Rows]]:
    """The exit code and the rows of the preflight for the tiny run; options replace or add to its command line."""
    monkeypatch.setattr("qa_ray.cli.start_ray", lambda config: None)
    job = runpy.run_path(str(ROOT / "jobs" / "doctor.py"))["job"]

    def run(*more: str, **changes: object) -> tuple[int, Rows]:
        *arguments, _no_tracking = command(
            place, "planned", {name.replace("_", "."): value for name, value in changes.items()}
        )
        code = main(job, [*arguments[2:], *more])
        return code, rows_of(capfd.readouterr().out)

    return run


def contents(place: Path) -> list[str]:
    return sorted(str(path) for path in place.rglob("*"))


def test_sound_run_passes_and_nothing_stays(examine: Callable[..., tuple[int, Rows]], place: Path) -> None:
    before = contents(place)
    code, rows = examine("--tracking.uri", f"sqlite:///{place}/mlflow.db")
    assert {name for name, (status, _) in rows.items() if status == "passed"} == NEEDED, rows
    assert {status for status, _ in rows.values()} == {"passed", "skipped"}
    assert code == 0
    assert contents(place) == before


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_each_fault_is_told_in_its_line_with_what_to_do(
    examine: Callable[..., tuple[int, Rows]], place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", os.devnull)
    (tmp_path / "file").write_text("")
    code, rows = examine(
        *("--data.train", str(tmp_path / "gone.json")),
        *("--train.precision", "fp16"),
        *("--cluster.num-workers", "99"),
        *("--run.storage-path", str(tmp_path / "file" / "runs")),
        *("--tracking.uri", f"http://127.0.0.1:{free_port()}"),
        *("--publish.repo-id", "somebody/trips"),
    )
    assert code == 1
    faults = {
        "training data": "there is no file or folder .*gone.json.* -> --data.train must name data that every node",
        "precision": "train.precision=fp16 needs a GPU.* -> let --train.precision be auto",
        "workers": "does not work as it is set -> cluster.num_workers=99 .* set at most 2 workers",
        "storage": "runs cannot be written.* -> name storage that every node may write and read",
        "tracking": "http://127.0.0.1.* -> start the server",
        "Hub": "there is no token for the Hub -> set HF_TOKEN",
    }
    for name, words in faults.items():
        status, text = rows[name]
        assert status == "failed", (name, text)
        assert re.search(words, text), (name, text)
    assert {name for name, (status, _) in rows.items() if status == "failed"} == faults.keys()
    assert rows["tracking nodes"][0] == "warning"


@pytest.mark.usefixtures("ray_cluster")
def test_node_that_hangs_or_crashes_is_told_and_answers_the_next_question() -> None:
    nodes = Nodes.joined(patience_s=60)
    (name,) = nodes.ask(math.sqrt, 4.0).values
    assert "ValueError" in nodes.ask(math.sqrt, -1.0).failures[name]
    assert Nodes(nodes.all, patience_s=0.5).ask(time.sleep, 3600).failures == {name: "no answer within 0.5 s"}
    assert nodes.ask(math.sqrt, 4.0, driver=True).values == {name: 2.0, "the driver": 2.0}


def test_nodes_with_disks_and_code_of_their_own_are_found_out(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("driver", "alike", "odd")}
    for folder in places.values():
        prepare(folder.mkdir() or folder)
    write_squad(places["odd"] / "train.json", NAMES)
    shutil.copytree(
        Path(qa_ray.__file__).parent, places["odd"] / "qa_ray", ignore=shutil.ignore_patterns("__pycache__")
    )
    with open(places["odd"] / "qa_ray" / "policies.py", "a") as file:
        file.write("# edited\n")
    before = contents(tmp_path)
    script = Path(__file__).with_name("disks.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr[-5000:]
    rows = rows_of(done.stdout)
    assert rows["nodes"][1].startswith("2 answer")
    assert re.search("is not the same everywhere: .* does not see what .* wrote", rows["storage"][1])
    assert re.search("not the same files everywhere: 1 file, .* on .*; 1 file, .* on ", rows["training data"][1])
    assert re.search(r"qa_ray/policies.py differ on \S+ -> install the same commit", rows["code"][1])
    failed = {name for name, (status, _) in rows.items() if status == "failed"}
    assert failed == {"code", "storage", "training data"}
    assert contents(tmp_path) == before
