"""The preflight on a local cluster, and by its real command line on two nodes that differ; nothing stays behind."""

import dataclasses
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
from ray_runs import NAMES, prepare, small_config, write_squad

import qa_ray
from qa_ray.config.policies import Precision
from qa_ray.doctor.examination import examine
from qa_ray.doctor.nodes import Answers, Nodes
from qa_ray.doctor.outputs import same_storage
from qa_ray.doctor.verdict import Status

T = TypeVar("T")


def contents(place: Path) -> list[str]:
    return sorted(str(path) for path in place.rglob("*"))


@pytest.mark.usefixtures("ray_cluster")
def test_sound_run_passes_and_nothing_stays(place: Path) -> None:
    before = contents(place)
    verdicts = dict(examine(small_config(place, "planned")))
    assert {name: verdict for name, verdict in verdicts.items() if verdict.status is not Status.PASSED}.keys() == {
        "Hub"
    }
    assert verdicts["Hub"].status is Status.SKIPPED
    assert verdicts["storage"].seen.endswith("the run planned is new")
    assert len(verdicts) == 12
    assert contents(place) == before


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.usefixtures("ray_cluster")
def test_each_fault_is_told_in_its_line_with_what_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", os.devnull)
    (tmp_path / "file").write_text("")
    config = small_config(
        place,
        "planned",
        data={"train": str(tmp_path / "gone.json")},
        train={"precision": Precision.FP16},
        cluster={"num_workers": 99},
        run={"storage_path": str(tmp_path / "file" / "runs")},
        tracking={"uri": f"http://127.0.0.1:{free_port()}"},
        publish={"repo_id": "somebody/trips"},
    )
    faults = {
        "training data": "there is no file or folder .*gone.json.* -> .* where every node sees them alike",
        "devices": "train.precision=fp16 needs a GPU: use bf16 or fp32 on CPUs",
        "workers": "cluster.num_workers=99 .* set at most 2 workers",
        "storage": "runs cannot be written.* -> name storage that every node may write and read",
        "tracking": "http://127.0.0.1.* -> start the server",
        "Hub": "there is no token for the Hub -> set HF_TOKEN",
    }
    failed = {name: verdict for name, verdict in examine(config) if verdict.status is Status.FAILED}
    for name, words in faults.items():
        assert re.search(words, f"{failed[name].seen} -> {failed[name].cure}"), failed[name]
    assert failed.keys() == faults.keys()


@pytest.mark.usefixtures("ray_cluster")
def test_run_that_may_not_begin_is_told(place: Path, tmp_path: Path) -> None:
    (tmp_path / "planned").mkdir()
    verdicts = dict(examine(small_config(place, "planned", run={"storage_path": str(tmp_path)})))
    assert verdicts["storage"].status is Status.FAILED
    assert "exists and is no run of qa_ray" in verdicts["storage"].seen


@pytest.mark.usefixtures("ray_cluster")
def test_node_that_hangs_or_crashes_is_told_and_answers_the_next_question() -> None:
    nodes = Nodes.joined(patience_s=60)
    (name,) = nodes.ask(math.sqrt, 4.0).values
    assert nodes.ask(math.sqrt, -1.0).failures == {name: "ValueError: math domain error"}
    assert "died" in nodes.ask(os._exit, 1).failures[name]
    assert Nodes(nodes.all, patience_s=0.5).ask(time.sleep, 3600).failures == {name: "no answer within 0.5 s"}
    assert nodes.ask(math.sqrt, 4.0, driver=True).values == {name: 2.0, "the driver": 2.0}


class CountingNodes(Nodes):
    """One node of this cluster under several names, and in how many places each question was asked."""

    def __init__(self, number: int) -> None:
        (node,) = Nodes.joined(patience_s=60).all
        super().__init__(tuple(dataclasses.replace(node, name=f"node {one}") for one in range(number)), patience_s=60)
        self.asked: Counter[str] = Counter()

    def ask_each(self, question: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]]) -> Answers[T]:
        self.asked[question.__name__] += len(arguments)
        return super().ask_each(question, arguments)


@pytest.mark.usefixtures("ray_cluster")
def test_all_places_are_asked_at_the_same_time(tmp_path: Path) -> None:
    # Each says that it is there, and waits for the others.
    meet = "touch $0/$$; while [ $(ls $0 | wc -l) -lt 4 ]; do sleep 0.05; done"
    answers = CountingNodes(3).ask(subprocess.check_call, ["sh", "-c", meet, str(tmp_path)], driver=True)
    assert answers.values == {"node 0": 0, "node 1": 0, "node 2": 0, "the driver": 0}


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("number", [1, 3])
def test_storage_is_tried_by_as_many_files_as_there_are_places(tmp_path: Path, number: int) -> None:
    nodes = CountingNodes(number)
    assert same_storage(nodes, str(tmp_path)).status is Status.PASSED
    places = number + 1
    assert nodes.asked == {"absent_folders": places, "write": places, "read": number, "names": 1, "delete": places}


def rows_of(printed: str) -> dict[str, tuple[str, str]]:
    """Status and text of each check, by its name."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        head = re.fullmatch(r"(passed|warning|failed|skipped) +(\S.{13}) (.*)", line)
        if head:
            found[head[2].strip()] = [head[1], head[3]]
        elif found and line.startswith(" " * 24):
            found[list(found)[-1]][1] += " " + line.strip()
    return {name: (status, text) for name, (status, text) in found.items()}


def test_nodes_with_disks_and_code_of_their_own_are_found_out(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("driver", "alike", "odd")}
    for folder in places.values():
        prepare(folder.mkdir() or folder)
    write_squad(places["odd"] / "train.json", NAMES)
    shutil.copytree(
        Path(qa_ray.__file__).parent, places["odd"] / "qa_ray", ignore=shutil.ignore_patterns("__pycache__")
    )
    with open(places["odd"] / "qa_ray" / "config" / "policies.py", "a") as file:
        file.write("# edited\n")
    before = contents(tmp_path)
    script = Path(__file__).with_name("disks.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr[-5000:]
    rows = rows_of(done.stdout)
    assert rows["nodes"][1].startswith("2 answer")
    assert re.search("is not the same on .* as on the driver -> name storage", rows["storage"][1])
    assert re.search("not the same files everywhere: 1 file, .* on .*; 1 file, .* on ", rows["training data"][1])
    assert re.search(r"qa_ray/config/policies.py differ on \S+ -> install the same commit", rows["code"][1])
    failed = {name for name, (status, _) in rows.items() if status == "failed"}
    assert failed == {"code", "storage", "training data"}
    assert contents(tmp_path) == before
