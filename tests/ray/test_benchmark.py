"""The benchmark runs every case at its smallest, and both sides of each comparison do the same work."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qa_ray.data.squad import to_squad
from qa_ray.recipes import minilm
from qa_ray.schema import Answer, Passage, Question

JOBS = Path(__file__).parents[2] / "jobs"
CASES = {"featurise", "train MiniLM", "decode trained", "decode random", "driver"}


def passage(index):
    """A context of a few sentences, or, once in five, one that needs several windows."""
    facts = [f"The tower of Town{index} number {floor} has {floor + 3} floors." for floor in range(3 + index % 4)]
    context = " ".join(facts * (12 if index % 5 == 0 else 1))
    answer = f"{index % 3 + 3} floors"
    question = Question(f"q{index}", f"How tall is tower {index % 3}?", (Answer(answer, context.rindex(answer)),), "")
    return Passage(context, (question,))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "train.json"
    path.write_text(json.dumps(to_squad(map(passage, range(40)), "towers")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(data):
    out = data.parent / "benchmark.json"
    options = ["--data", str(data), "--threads", "1", "--steps", "1", "--repeats", "1", "--out", str(out)]
    # A process of its own: it sets threads, and starts and leaves a cluster.
    subprocess.run([sys.executable, str(JOBS / "benchmark.py"), *options], check=True, capture_output=True, text=True)
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.fixture
def jobs(monkeypatch):
    monkeypatch.syspath_prepend(str(JOBS))


def test_report_has_a_row_of_every_case_and_says_where_it_was_measured(report):
    assert {row["case"] for row in report["rows"]} == CASES
    assert report["machine"]["cores"] >= 1
    assert "torch" in report["machine"]["versions"]
    assert report["options"]["steps"] == 1
    assert all(0 <= share < 1 for share in report["padding_share"].values())


def test_both_sides_of_every_row_did_the_same_work(report):
    for row in report["rows"]:
        work = [[run["work"] for run in row[side]] for side in ("standard_runs", "ours_runs")]
        assert work[0] == work[1], row["case"]
        assert min(work[0]) > 0
        assert row["ratio"] == pytest.approx(row["ours_per_second"] / row["standard_per_second"])


def test_driver_trained_what_the_bare_loop_trained(report):
    details = next(row for row in report["rows"] if row["case"] == "driver")["details"]
    assert details["ours_train_loss"] == pytest.approx(details["standard_train_loss"], rel=1e-3)


@pytest.mark.usefixtures("jobs")
def test_windows_and_labels_of_the_standard_way_are_ours(data):
    from benchmarking.comparison import Material
    from benchmarking.standard import training_features

    material = Material.read(minilm(), str(data))
    window, collator = material.config.window, material.collator
    features = training_features(material.rows, material.tokenizer, window.max_length, window.stride, pad=False)
    assert len(features) == len(collator.windows) > len(material.rows)
    for item, feature in enumerate(features):
        batch = collator(np.array([item]))
        length = len(feature["input_ids"])
        assert batch.inputs["input_ids"][0, :length].tolist() == feature["input_ids"]
        assert int(batch.inputs["attention_mask"].sum()) == length
        labels = int(batch.start_positions[0]), int(batch.end_positions[0])
        assert labels == (feature["start_positions"], feature["end_positions"])


@pytest.mark.usefixtures("jobs")
def test_sampled_batches_are_full_and_hold_no_window_twice():
    from benchmarking.training import spread_batches

    lengths = np.random.default_rng(0).integers(20, 384, 1000)
    items = spread_batches(lengths, minilm(), 5)
    assert len(items) == len(set(items.tolist())) == 5 * minilm().batch.size
    assert lengths[items].mean() == pytest.approx(lengths.mean(), rel=0.05)


def test_missing_data_is_told_in_a_line(tmp_path):
    command = [
        sys.executable,
        str(JOBS / "benchmark.py"),
        "--data",
        "nowhere.json",
        "--out",
        str(tmp_path / "out.json"),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "error: --data=nowhere.json cannot be read: No such file or directory"
