"""Every case of the benchmark that needs no Ray runs on a tiny model, and both its sides do the same work."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_runs import made_passages, tiny_config

from qa_ray.benchmark.checkpoints import checkpoints
from qa_ray.benchmark.decoding import decode
from qa_ray.benchmark.featurising import featurise
from qa_ray.benchmark.job import measure
from qa_ray.benchmark.options import BenchmarkOptions, Case
from qa_ray.benchmark.standard import training_features
from qa_ray.benchmark.timing import Row, Timing, interleave, table
from qa_ray.benchmark.training import spread_batches
from qa_ray.benchmark.workload import Workload, to_squad
from qa_ray.cli.execution import exit_code
from qa_ray.config.recipes import minilm
from qa_ray.errors import ConfigError


def assert_same_work(rows: list[Row]) -> None:
    for row in rows:
        assert [timing.work for timing in row.standard_timings] == [timing.work for timing in row.ours_timings]
        assert min(timing.work for timing in row.ours_timings) > 0
        assert row.ratio > 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions whose contexts need one window or several."""
    path = tmp_path_factory.mktemp("benchmark") / "train.json"
    path.write_text(json.dumps(to_squad(made_passages(16, unanswerable=2), "made")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def workload(bert: Path, data: Path) -> Workload:
    return Workload.read(tiny_config(bert), str(data))


CASES: dict[str, Callable[[Workload], list[Row]]] = {
    "featurise": lambda workload: featurise(workload, 1),
    "decode": lambda workload: decode(workload, 1),
    "checkpoint": lambda workload: checkpoints(workload, steps=1, repeats=1),
}


@pytest.mark.parametrize(("case", "num_rows"), [("featurise", 1), ("decode", 2), ("checkpoint", 1)])
def test_both_sides_of_every_row_did_the_same_work(workload: Workload, case: str, num_rows: int) -> None:
    rows = CASES[case](workload)
    assert len(rows) == num_rows
    assert_same_work(rows)
    assert all(row.case.startswith(case) for row in rows)


def test_windows_and_labels_of_the_standard_way_are_ours(workload: Workload) -> None:
    window, collator = workload.config.window, workload.collator
    features = training_features(workload.rows, workload.tokenizer, window.max_length, window.stride, pad=False)
    assert len(features) == len(collator.windows) > len(workload.rows)
    for item, feature in enumerate(features):
        batch = collator(np.array([item]))
        length = len(feature["input_ids"])
        assert batch.inputs["input_ids"][0, :length].tolist() == feature["input_ids"]
        assert int(batch.inputs["attention_mask"].sum()) == length
        labels = int(batch.start_positions[0]), int(batch.end_positions[0])
        assert labels == (feature["start_positions"], feature["end_positions"])


def test_sampled_batches_are_full_and_hold_no_window_twice() -> None:
    lengths = np.random.default_rng(0).integers(20, 384, 1000)
    items = spread_batches(lengths, minilm(), 5)
    assert len(items) == len(set(items.tolist())) == 5 * minilm().batch.size
    assert lengths[items].mean() == pytest.approx(lengths.mean(), rel=0.05)


@pytest.mark.parametrize("bf16", [True, False])
def test_rows_in_bf16_are_left_out_and_the_report_says_so_where_the_hardware_has_none(
    bert: Path, data: Path, bf16: bool
) -> None:
    options = BenchmarkOptions(cases=(Case.TRAIN,), data=str(data), steps=1, repeats=1)
    report, rows = measure(options, tiny_config(bert), bf16=bf16)
    assert len(rows) == (5 if bf16 else 2)
    assert_same_work(rows)
    assert any("bf16" in row.ours for row in rows) == bf16
    assert any("bf16" in row.standard for row in rows) == bf16
    assert any("left out: bf16" in note for note in report["notes"]) == (not bf16)
    assert all(0 <= share < 1 for share in report["padding_share"].values())


def test_script_shows_and_writes_what_was_measured_and_where(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ["--cases", "featurise", "--data", str(data), "--repeats", "1", "--out", str(out)]
    # A process of its own: it sets threads and loggers.
    script = Path(__file__).parents[3] / "jobs" / "benchmark.py"
    result = subprocess.run([sys.executable, str(script), *options], check=True, capture_output=True, text=True)
    shown = result.stdout.splitlines()
    report = json.loads(out.read_text(encoding="utf-8"))
    assert [row["case"] for row in report["rows"]] == ["featurise"]
    assert shown[1].split()[0] == "featurise"
    assert shown[-1] == f"written to {out}"
    assert {"cpu_cores", "torch", "datasets", "load_average"} <= set(report["environment"])
    assert report["options"]["repeats"] == 1


def test_speed_is_the_median_and_the_ratio_that_of_ours_to_the_standard() -> None:
    row = Row(
        case="c",
        standard="s",
        ours="o",
        unit="windows",
        standard_timings=[Timing(10, 10.0), Timing(10, 5.0), Timing(10, 1.0)],
        ours_timings=[Timing(10, 2.5)],
    )
    assert row.as_dict()["standard_per_second"] == 2
    assert row.ratio == 2
    assert table([row]).splitlines()[1].split() == ["c", "s", "o", "windows", "2.0", "4.0", "2"]


def test_ways_that_do_not_do_the_same_work_are_not_compared() -> None:
    with pytest.raises(AssertionError, match="the ways did not do the same work"):
        interleave("featurise", {"standard": lambda: Timing(1, 1.0), "ours": lambda: Timing(2, 1.0)}, 1)


def test_missing_data_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    options = BenchmarkOptions(data="nowhere.json")
    assert exit_code(lambda: measure(options, minilm(), bf16=True) and None) == 1
    assert capsys.readouterr().err.startswith("error: nowhere.json: there is no file or folder ")


def test_option_below_one_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="--repeats=0 must be at least 1"):
        BenchmarkOptions(repeats=0)
