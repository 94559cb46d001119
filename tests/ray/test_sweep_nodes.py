"""A sweep on several Ray nodes that loses two of them; see sweep_nodes.py for what happens to it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray_runs import metrics_of, steps_before

pytestmark = pytest.mark.long


def test_sweep_goes_on_after_a_node_of_its_workers_and_then_its_own_die(tmp_path: Path) -> None:
    script = Path(__file__).with_name("sweep_nodes.py")
    acted = subprocess.run([sys.executable, str(script), str(tmp_path)], text=True, capture_output=True)
    assert acted.returncode == 0, acted.stderr[-5000:]
    seen = json.loads((tmp_path / "seen.json").read_text())
    said = (tmp_path / "sweep.txt").read_text()
    assert seen["code"] == 0, said[-5000:]
    assert seen["lost_with_its_node"], "the trial's process was on another node than its sweep"
    records = json.loads((tmp_path / "runs" / "sweep" / "trials.json").read_text())
    assert [record["status"] for record in records] == ["finished", "finished"]
    for trial, (step, killed_at) in seen["losses"].items():
        run = tmp_path / "runs" / "sweep" / "trials" / trial
        steps = [line["step"] for line in metrics_of(run) if line["phase"] == "train"]
        assert steps == list(range(1, seen["num_steps"] + 1))
        assert step in steps_before(run, killed_at), "it began anew"
        assert json.loads((run / "result.json").read_text())["ledger"] == seen["ledger"]
