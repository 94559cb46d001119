"""Runs on several Ray nodes that die, leave, return and are preempted; see nodes.py for what happens to them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from trips import metrics_of, outcome_of

SCRIPT = Path(__file__).with_name("nodes.py")


def act(scenario: str, place: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), scenario, str(place)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]


def disturbed_and_calm(place: Path) -> list[dict[str, Any]]:
    """What the two runs have left."""
    return [outcome_of(place / "runs" / name) for name in ("disturbed", "calm")]


def test_node_that_dies_is_replaced_and_changes_nothing(tmp_path: Path) -> None:
    act("dies", tmp_path)
    disturbed, calm = disturbed_and_calm(tmp_path)
    assert disturbed == calm


def test_elastic_run_shrinks_and_grows_with_its_nodes_and_trains_the_planned_batches(tmp_path: Path) -> None:
    act("leaves-and-returns", tmp_path)
    ledgers = json.loads((tmp_path / "seen.json").read_text())
    assert len(ledgers) >= 3
    assert all(trained == planned for trained, planned in ledgers)
    steps = [line["step"] for line in metrics_of(tmp_path / "runs" / "disturbed") if line["phase"] == "train"]
    assert steps == list(range(1, len(steps) + 1))


def test_node_that_will_be_taken_away_is_saved_from_at_once(tmp_path: Path) -> None:
    act("is-preempted", tmp_path)
    assert len(json.loads((tmp_path / "seen.json").read_text())) == 1
    disturbed, calm = disturbed_and_calm(tmp_path)
    assert disturbed == calm
