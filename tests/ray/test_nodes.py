"""Runs on several Ray nodes that die, leave, return and are preempted; see nodes.py for what happens to them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_runs import metrics_of, outcome_of, steps_before

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).with_name("nodes.py")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="module")
def act(place: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Acts one scenario after the other on one cluster, and returns what was seen."""
    said = place / "stderr.txt"
    with said.open("w") as errors:
        command = [sys.executable, str(SCRIPT), str(place)]
        nodes = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)

    def act(scenario: str) -> dict[str, Any]:
        nodes.stdin.write(f"{scenario}\n")
        nodes.stdin.flush()
        answer = nodes.stdout.readline()
        assert answer, said.read_text()[-5000:]
        seen = json.loads(answer)
        assert "failure" not in seen, seen["failure"]
        return seen

    with nodes:
        yield act


def disturbed_and_calm(place: Path, scenario: str) -> list[dict[str, Any]]:
    """What the two runs have left."""
    return [outcome_of(place / "runs" / name) for name in (scenario, "calm")]


def test_node_that_dies_is_replaced_and_changes_nothing(place: Path, act: Callable[[str], dict[str, Any]]) -> None:
    seen = act("dies")
    disturbed, calm = disturbed_and_calm(place, "dies")
    assert disturbed == calm
    assert seen["step"] in steps_before(place / "runs" / "dies", seen["killed_at"]), "it began anew"


def test_elastic_run_shrinks_and_grows_with_its_nodes_and_trains_the_planned_batches(
    place: Path, act: Callable[[str], dict[str, Any]]
) -> None:
    ledgers = act("leaves-and-returns")["ledgers"]
    assert len(ledgers) >= 3
    assert all(trained == planned for trained, planned in ledgers)
    steps = [line["step"] for line in metrics_of(place / "runs" / "leaves-and-returns") if line["phase"] == "train"]
    assert steps == list(range(1, len(steps) + 1))
    (kind,) = json.loads((place / "runs" / "leaves-and-returns" / "environment.json").read_text())["workers"]
    assert (kind["workers"], kind["nodes"]) == (2, 2), "not those of the driver's node, nor of the last group alone"


def test_elastic_run_that_grows_in_mid_epoch_makes_no_step_twice(
    place: Path, act: Callable[[str], dict[str, Any]]
) -> None:
    seen = act("comes")
    assert seen["repeated"] == [0, 0]
    assert seen["world_sizes"] == [1, 2]
    assert seen["begun"] == [0, seen["begun"][1]]
    assert all(trained == planned for trained, planned in seen["ledgers"])
    steps = [line["step"] for line in metrics_of(place / "runs" / "comes") if line["phase"] == "train"]
    assert steps == list(range(1, len(steps) + 1))


def test_node_that_will_be_taken_away_is_saved_from_at_once(place: Path, act: Callable[[str], dict[str, Any]]) -> None:
    seen = act("is-preempted")
    # At the end of the only epoch there would be one in any case.
    unplanned, last = seen["steps"]
    disturbed, calm = disturbed_and_calm(place, "is-preempted")
    assert disturbed == calm
    assert unplanned < last
    assert unplanned in steps_before(place / "runs" / "is-preempted", seen["killed_at"]), "it began anew"
