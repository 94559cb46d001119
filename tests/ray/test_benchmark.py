"""The cases of the benchmark that need Ray, on a tiny model: both sides do the same work, to the same end."""

import json
from pathlib import Path

import pytest
from small_runs import made_passages, tiny_config

from qa_ray.benchmark.job import measure
from qa_ray.benchmark.options import BenchmarkOptions, Case
from qa_ray.benchmark.workload import to_squad


@pytest.mark.long
@pytest.mark.usefixtures("ray_cluster")
def test_driver_trains_what_a_bare_loop_trains_and_the_job_answers_what_a_plain_loop_answers(
    place: Path, tmp_path: Path
) -> None:
    data = tmp_path / "train.json"
    data.write_text(json.dumps(to_squad(made_passages(16, num_words=(10, 12)), "made")), encoding="utf-8")
    options = BenchmarkOptions(cases=(Case.DRIVER, Case.PREDICT), data=str(data), threads=1, steps=1, repeats=1)
    report, rows = measure(options, tiny_config(place / "tiny"), bf16=True)
    assert [row.case for row in rows] == ["driver", "predict fp32", "predict bf16"]
    assert report["notes"] == []
    for row in rows:
        assert [timing.work for timing in row.standard_timings] == [timing.work for timing in row.ours_timings]
        assert min(timing.work for timing in row.ours_timings) > 0
    details = rows[0].details
    assert details["ours_train_loss"] == pytest.approx(details["standard_train_loss"], rel=1e-3)
