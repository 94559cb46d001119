"""Runs on several Ray nodes that die, leave, return and are preempted; see nodes.py for what happens to them."""

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from trips import outcome_of

SCRIPT = Path(__file__).with_name("nodes.py")


def disturbed(scenario: str, place: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the undisturbed and the disturbed run have left."""
    done = subprocess.run([sys.executable, str(SCRIPT), scenario, str(place)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return outcome_of(place / "runs" / "calm"), outcome_of(place / "runs" / "disturbed")


def test_node_that_dies_is_replaced_and_changes_nothing(tmp_path: Path) -> None:
    calm, result = disturbed("dies", tmp_path)
    assert result == calm


def test_elastic_run_shrinks_and_grows_with_its_nodes(tmp_path: Path) -> None:
    calm, result = disturbed("leaves-and-returns", tmp_path)
    sizes = json.loads((tmp_path / "seen.json").read_text())
    assert [size for size, _ in groupby(sizes)] == [2, 1, 2]
    # The same batches in the same order; their gradients are summed by other ranks, so the rest differs by rounding.
    assert result["ledger"] == calm["ledger"]
    steps = [line["step"] for line in result["metrics"] if line["phase"] == "train"]
    assert steps == [line["step"] for line in calm["metrics"] if line["phase"] == "train"]
    losses = [[line["train_loss"] for line in run["metrics"] if "train_loss" in line] for run in (calm, result)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05, abs=0.05)


def test_node_that_will_be_taken_away_is_saved_from_at_once(tmp_path: Path) -> None:
    calm, result = disturbed("is-preempted", tmp_path)
    assert len(json.loads((tmp_path / "seen.json").read_text())) == 1
    assert result == calm
