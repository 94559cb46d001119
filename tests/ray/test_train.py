"""The whole training job on a local cluster of two workers, with a tiny model: what it leaves, and what it refuses."""

import dataclasses
import json
import logging
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest
import ray
from families import MISMATCHED
from mlflow import MlflowClient
from mlflow.entities import Run
from ray_runs import metrics_of, outcome_of, small_config
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from qa_ray.answers import QuestionAnswerer
from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import BadRows, Precision
from qa_ray.errors import ClusterError, ConfigError, DataError, ModelError, StorageError, TrainingError, UserError
from qa_ray.runs.conclusion import summary
from qa_ray.runs.driver import TrainResult, train

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def make_config(place: Path) -> Callable[..., Config]:
    return partial(small_config, place)


@pytest.fixture
def store(place: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """What MLflow has recorded; its own functions look there too."""
    uri = f"sqlite:///{place}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def record_of(store: MlflowClient, name: str) -> Run:
    """The only MLflow run of a name."""
    experiment = store.get_experiment_by_name("qa_ray")
    (run,) = store.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return run


def test_run_leaves_model_predictions_metrics_and_configuration(trained: TrainResult, place: Path) -> None:
    run = place / "runs" / "first"
    assert trained.folder == str(run)
    model = AutoModelForQuestionAnswering.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert model.config.vocab_size >= len(tokenizer)
    assert not [path for path in run.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    predictions = json.loads((run / "evaluation" / "predictions.json").read_text())
    n_best = json.loads((run / "evaluation" / "nbest_predictions.json").read_text())
    odds = json.loads((run / "evaluation" / "null_odds.json").read_text())
    assert set(predictions) == set(n_best) == set(odds) == {f"validation-{number}" for number in range(9)}
    saved = json.loads((run / "model" / "qa_ray.json").read_text())
    assert saved["no_answer_threshold"] == json.loads((run / "evaluation" / "metrics.json").read_text())["threshold"]
    assert json.loads((run / "config.json").read_text())["window"] == {"max_length": 128, "stride": 8}


def test_every_step_and_evaluation_is_in_the_metrics_file(trained: TrainResult, place: Path) -> None:
    lines = metrics_of(place / "runs" / "first")
    trained_lines = [line for line in lines if line["phase"] == "train"]
    steps = [line["step"] for line in trained_lines]
    evaluated = [line["step"] for line in lines if line["phase"] == "evaluate"]
    assert steps == list(range(1, 19))
    assert evaluated == [0, 3, 6, 9, 12, 15, 18]
    named = {"train_loss", "learning_rate", "grad_norm", "padding_share"}
    assert all(named <= set(line) for line in trained_lines)
    assert trained.before is not None
    assert trained.before["eval_f1"] == next(line["eval_f1"] for line in lines if line["step"] == 0)
    scores = [line["eval_f1"] for line in lines if line["phase"] == "evaluate" and line["step"] > 0]
    assert trained.best["eval_f1"] == max(scores)


def test_mlflow_holds_parameters_curves_and_answers(trained: TrainResult, place: Path, store: MlflowClient) -> None:
    run = record_of(store, "first")
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.learning_rate"] == "0.001"
    losses = {point.step: point.value for point in store.get_metric_history(run.info.run_id, "train_loss")}
    lines = metrics_of(place / "runs" / "first")
    assert losses == {line["step"]: line["train_loss"] for line in lines if "train_loss" in line}
    files = {item.path for item in store.list_artifacts(run.info.run_id, "evaluation")}
    assert {f"evaluation/{name}" for name in ("predictions.json", "nbest_predictions.json", "report.html")} <= files
    assert run.info.run_id in trained.record


def test_mlflow_tells_what_the_run_was_made_from(trained: TrainResult, place: Path, store: MlflowClient) -> None:
    run = record_of(store, "first")
    tags = run.data.tags
    assert tags["model.name"] == str(place / "tiny")
    assert tags["ray.job_id"] == ray.get_runtime_context().get_job_id()
    digests = {"training": tags["data.train.digest"], "validation": tags["data.validation.digest"]}
    used = {use.tags[0].value: use.dataset for use in run.inputs.dataset_inputs}
    assert {name: data.digest for name, data in used.items()} == {name: text[:36] for name, text in digests.items()}
    assert used["training"].name == "train.json"
    assert json.loads(used["training"].source) == {"uri": str(place / "train.json")}
    assert json.loads(used["validation"].profile)["num_questions"] == 9
    environment = json.loads((place / "runs" / "first" / "environment.json").read_text())
    assert environment["ray"] == tags["environment.ray"] == ray.__version__
    assert [(kind["workers"], kind["nodes"], kind["gpu"]) for kind in environment["workers"]] == [(2, 1, "")]
    assert tags["environment.workers"].startswith("2 CPU workers on 1 node with ")


def test_logged_model_is_the_one_that_was_kept(trained: TrainResult, place: Path, store: MlflowClient) -> None:
    assert trained.logged_model is not None
    asked = pd.DataFrame(
        {"question": ["Where did Ada go?"], "context": ["Once upon a time Ada went to Rome by train."]}
    )
    (answer,) = mlflow.pyfunc.load_model(trained.logged_model).predict(asked).to_dict("records")
    own = QuestionAnswerer.from_pretrained(str(place / "runs" / "first"))
    assert answer == own(question=asked["question"][0], context=asked["context"][0])
    champion = store.get_model_version_by_alias("trips", "champion")
    assert champion.run_id == record_of(store, "first").info.run_id
    assert float(champion.tags["score"]) == trained.best["eval_f1"]
    assert trained.registered == "trips version 1 is the champion: there was none"


def test_report_tells_scores_and_curves(trained: TrainResult, place: Path) -> None:
    page = (place / "runs" / "first" / "evaluation" / "report.html").read_text()
    assert ">Learning curves</h2>" in page
    assert f"<b>{trained.best['eval_f1']:.1f}</b>" in page
    assert "Measured on" in page
    assert "validation.json, 9 questions in 9 windows" in page


@pytest.mark.long
def test_what_mlflow_could_not_take_is_sent_by_the_same_command(
    make_config: Callable[..., Config], place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = make_config("late", train={"max_steps": 1}, tracking={"uri": uri})
    # MLflow cannot make its folder there.
    (tmp_path / "mlartifacts").write_text("")
    result = train(config)
    (tmp_path / "mlartifacts").unlink()
    assert result.logged_model is None
    assert "cannot be logged in MLflow" in caplog.text
    assert "the same command tries again" in caplog.text
    again = train(config)
    assert not again.trained_now
    assert again.logged_model is not None
    assert again.best == result.best
    late = MlflowClient(uri)
    (run,) = late.search_runs([late.get_experiment_by_name("qa_ray").experiment_id])
    assert [file.path for file in late.list_artifacts(run.info.run_id)] == ["evaluation"]
    assert run.info.status == "FINISHED"
    seen = {path: path.stat().st_mtime_ns for path in (place / "runs" / "late").rglob("*")}
    assert train(config).logged_model == again.logged_model
    assert {path: path.stat().st_mtime_ns for path in (place / "runs" / "late").rglob("*")} == seen


def test_mlflow_holds_how_busy_the_node_was_apart_from_the_metrics(
    trained: TrainResult, place: Path, store: MlflowClient
) -> None:
    run = record_of(store, "first")
    found = {name for name in run.data.metrics if "utilization" in name or "usage" in name}
    # The cluster's only node has no name.
    assert {"system/cpu_utilization_percentage", "system/disk_usage_megabytes"} <= found
    assert not [name for name in found if not name.startswith("system/") or "node_" in name]
    busy = store.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert any(0 < point.value <= 100 for point in busy)
    assert all(first.step < second.step for first, second in pairwise(busy))
    used = run.data.metrics["system/system_memory_usage_megabytes"]
    assert 0 < used < psutil.virtual_memory().total / 1e6
    assert "usage" not in (place / "runs" / "first" / "metrics.jsonl").read_text()


def test_summary_shows_scores_answers_and_places(trained: TrainResult) -> None:
    text = summary(trained)
    assert f"{trained.folder}/model" in text
    assert "before" in text
    assert f"{trained.best['eval_f1']:.2f}" in text
    assert "no answer" in text
    assert all(example.question in text for example in trained.examples)


@pytest.mark.long
def test_same_seed_and_workers_give_the_same_bits_however_often_the_run_is_saved(
    trained: TrainResult, undisturbed: dict[str, Any], place: Path
) -> None:
    assert outcome_of(place / "runs" / "first") == undisturbed


@pytest.mark.long
def test_loss_that_is_no_number_stops_the_run_and_names_the_batch(
    make_config: Callable[..., Config], store: MlflowClient
) -> None:
    config = make_config("astray", optim={"learning_rate": 1e38, "warmup_ratio": 0.0, "max_grad_norm": 0.0})
    with pytest.raises(TrainingError, match=r"at step \d+, epoch 0: .*questions train-\d+"):
        train(config)
    assert record_of(store, "astray").info.status == "FAILED"


@pytest.mark.long
def test_bad_rows_are_left_out_and_written_down_if_asked(
    make_config: Callable[..., Config],
    place: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A relative path to the model means nothing in a worker's own working directory.
    monkeypatch.chdir(place)
    rows = json.loads((place / "train.json").read_text())
    first, second = (rows["data"][0]["paragraphs"][number]["qas"][0] for number in (0, 1))
    first["answers"][0]["answer_start"] = 3
    second["id"] = "train-5"
    (tmp_path / "bad.json").write_text(json.dumps(rows))
    bad = {"train": str(tmp_path / "bad.json")}
    with pytest.raises(DataError, match=r"answer_start=3.*there stands"):
        train(make_config("strict", data=bad))
    with caplog.at_level(logging.WARNING, "qa_ray"):
        train(
            make_config(
                "lenient",
                model={"name": "tiny"},
                data={**bad, "on_bad_row": BadRows.SKIP},
                train={"max_steps": 1},
                cluster={"num_workers": 1},
            )
        )
    written = (place / "runs" / "lenient" / "bad_rows_train.jsonl").read_text().splitlines()
    assert [json.loads(line)["field"] for line in written] == ["answers[0].answer_start", "id"]
    assert "2 rows cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"cluster": {"num_workers": 3}}, ClusterError, "cluster.num_workers=3 .* room for 2 such workers"),
        ({"cluster": {"cpus_per_worker": 2}}, ClusterError, "room for 1 such workers"),
        ({"cluster": {"use_gpu": True}}, ClusterError, "needs as many GPUs, but the cluster has 0"),
        ({"run": {"name": "taken"}}, StorageError, "run.name=taken: .* is no run of qa_ray"),
        ({"data": {"train": "nowhere.json"}}, DataError, "nowhere.json"),
        ({"model": {"name": "/no/such/model"}}, ModelError, "/no/such/model"),
        ({"window": {"max_length": 4096}}, ConfigError, "window.max_length=4096 is beyond the 512 tokens"),
        ({"window": {"stride": 127}}, ConfigError, "window.stride=127 leaves no room"),
        ({"train": {"precision": Precision.FP16}}, ConfigError, "train.precision=fp16 needs a GPU"),
    ],
    ids=[
        "more workers than CPUs",
        "workers too large",
        "no GPU",
        "name taken",
        "no file",
        "no model",
        "long window",
        "wide stride",
        "fp16 on a CPU",
    ],
)
def test_mistake_is_refused_before_training_and_leaves_the_name_free(
    make_config: Callable[..., Config],
    place: Path,
    changes: dict[str, dict[str, object]],
    kind: type[UserError],
    words: str,
) -> None:
    (place / "runs" / "taken").mkdir(parents=True, exist_ok=True)
    config = make_config("mistaken", **changes)
    with pytest.raises(kind, match=words):
        train(config)
    assert not (place / "runs" / "mistaken").exists()


def test_model_that_fails_on_a_window_is_refused_before_training_and_leaves_the_name_free(
    make_config: Callable[..., Config], place: Path, tmp_path: Path
) -> None:
    MISMATCHED.save(tmp_path)
    words = rf"the model {tmp_path} fails on a window of \d+ tokens .*: AssertionError: .*\(lower window\.max_length"
    with pytest.raises(ModelError, match=words):
        train(make_config("mistaken", model={"name": str(tmp_path)}))
    assert not (place / "runs" / "mistaken").exists()


def test_validation_without_answers_is_refused(make_config: Callable[..., Config], tmp_path: Path) -> None:
    rows = [
        {"id": "a", "context": "Nothing is here.", "question": "What?", "answers": {"text": [], "answer_start": []}}
    ]
    (tmp_path / "empty.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(DataError, match="no question with an answer"):
        train(make_config("mistaken", data={"validation": str(tmp_path / "empty.jsonl")}))


def test_summary_names_files_of_a_run_on_an_object_store(trained: TrainResult) -> None:
    text = summary(dataclasses.replace(trained, folder="s3://bucket/runs/first?region=x"))
    assert "model   s3://bucket/runs/first/model?region=x\n" in text
    assert "report  s3://bucket/runs/first/evaluation/report.html?region=x\n" in text
