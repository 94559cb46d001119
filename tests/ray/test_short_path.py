"""One short way through the jobs on a local cluster, beside test_train.py: a kill, an evaluation, a prediction."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluations import assert_same_metrics
from faults import Killer, meanwhile
from ray_runs import EVERY_STEP, outcome_of, small_config, steps_before

from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import Precision
from qa_ray.evaluation.job import evaluate
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.evaluation.report import summary
from qa_ray.prediction.job import predict
from qa_ray.prediction.options import OutFormat, PredictionOptions
from qa_ray.runs.driver import TrainResult, train

ONE_WORKER = ClusterConfig(num_workers=1, cpus_per_worker=1)


@pytest.fixture(scope="module")
def asked(place: Path, trained: TrainResult) -> dict[str, Any]:
    """What the jobs are asked for that let the trained model answer its validation questions."""
    return {
        "model": trained.folder,
        "data": str(place / "validation.json"),
        "precision": Precision.FP32,
        "cluster": ONE_WORKER,
    }


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_run_whose_worker_is_killed_goes_on_and_ends_with_the_same_bits(trained: TrainResult, place: Path) -> None:
    run = place / "runs" / "killed"
    killer = Killer(run, step=7, victim=1)
    with meanwhile(killer):
        train(small_config(place, "killed", **EVERY_STEP))
    assert outcome_of(run) == outcome_of(place / "runs" / "first")
    assert killer.step in steps_before(run, killer.killed_at)


def test_evaluation_finds_the_scores_that_training_recorded(asked: dict[str, Any], place: Path) -> None:
    out = place / "evaluated"
    result = evaluate(EvaluationOptions(**asked, out=out, num_resamples=200))
    recorded = place / "runs" / "first" / "evaluation"
    assert read(out / "predictions.json") == read(recorded / "predictions.json")
    assert_same_metrics(out, recorded)
    assert str(out / "report.html") in summary(result)
    assert result.scores["f1"] == pytest.approx(read(out / "metrics.json")["f1"])
    assert result.report.read() == (out / "report.html").read_text(encoding="utf-8")


def test_prediction_gives_the_answers_of_evaluation(asked: dict[str, Any], place: Path) -> None:
    out = place / "predicted"
    result = predict(PredictionOptions(**asked, out=str(out), out_format=OutFormat.JSONL, part_size=4))
    rows = [json.loads(line) for path in sorted(out.glob("answers/part-*")) for line in path.read_text().splitlines()]
    assert result.answers().column("id").to_pylist() == [row["id"] for row in rows]
    assert {row["id"]: row["answer"] for row in rows} == read(
        place / "runs" / "first" / "evaluation" / "predictions.json"
    )
