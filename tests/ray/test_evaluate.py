"""The evaluation job on a local cluster, with tiny models: its scores are the evaluator's, whatever the workers."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from answerers import SHORT_WINDOW, save_scattered
from evaluations import assert_same_metrics
from families import FAMILIES, MISMATCHED
from pages import Page
from passages import corpus_of, read_file
from ray_runs import NAMES, write_squad
from small_runs import cpu_accelerator
from strict import read as read_strictly

from qa_ray.config.fine_tuning import Config, ModelConfig
from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import AnswerPrecision, BadRows, NoAnswer
from qa_ray.errors import ConfigError, DataError, ModelError, StorageError
from qa_ray.evaluation import workers
from qa_ray.evaluation.job import evaluate
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.evaluation.report import summary
from qa_ray.model.loading import learn_template, load_model, load_settings, load_tokenizer
from qa_ray.runs.worker import make_collator
from qa_ray.scores.metrics import squad_v2_scores
from qa_ray.scores.results import Evaluation
from qa_ray.training.evaluator import Evaluator

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_cluster")]

THRESHOLD = -28.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model that has a threshold, another model that has none, and 24 questions."""
    place = tmp_path_factory.mktemp("evaluate")
    FAMILIES["bert"].save(place / "tiny")
    save_scattered(place / "run" / "model", place / "tiny", seed=1, threshold=THRESHOLD)
    save_scattered(place / "other", place / "tiny", seed=2, threshold=None)
    line = {"time": 1.0, "phase": "train", "step": 1, "train_loss": 2.5}
    (place / "run" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    write_squad(place / "dev.json", NAMES[:8])
    return place


@pytest.fixture(scope="module")
def options(place: Path) -> Callable[..., EvaluationOptions]:
    return partial(
        EvaluationOptions,
        model=str(place / "run"),
        data=str(place / "dev.json"),
        out=place / "out",
        precision=AnswerPrecision.FP32,
        num_resamples=200,
        cluster=ClusterConfig(num_workers=2, cpus_per_worker=1),
    )


@pytest.fixture(scope="module")
def shown(ray_cluster: None, place: Path, options: Callable[..., EvaluationOptions]) -> str:
    """What the job shows of the run's model against the other one, on two workers."""
    return summary(evaluate(options(against=str(place / "other"))))


@pytest.fixture(scope="module")
def plain(place: Path) -> Evaluation:
    """The same evaluation of the run's model in this process."""
    config = Config(model=ModelConfig(name=str(place / "run" / "model")), window=SHORT_WINDOW)
    tokenizer = load_tokenizer(config.model)
    corpus = corpus_of(read_file(str(place / "dev.json")), tokenizer)
    collator = make_collator(config, corpus, learn_template(tokenizer, load_settings(config.model)))
    assert len(collator.windows) > len(corpus)
    evaluator = Evaluator(collator, config.evaluate, no_answer=True)
    return evaluator(load_model(config.model), cpu_accelerator())


def test_a_model_is_measured_in_int8(
    shown: str, place: Path, plain: Evaluation, options: Callable[..., EvaluationOptions], tmp_path: Path
) -> None:
    evaluate(options(precision=AnswerPrecision.INT8, out=tmp_path / "out"))
    found, expected = read(tmp_path / "out", "null_odds"), dict(plain.null_odds)
    assert found != read(place / "out", "null_odds")
    # As random as its weights are, the tiny model's scores are those of fp32 to a few hundredths of their spread.
    spread = max(expected.values()) - min(expected.values())
    assert found == pytest.approx(expected, abs=0.1 * spread)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_answers_are_those_of_the_evaluator_in_plain_python(shown: str, place: Path, plain: Evaluation) -> None:
    found, expected = read(place / "out", "nbest_predictions"), plain.n_best
    assert found.keys() == expected.keys()
    for key, spans in expected.items():
        assert [span["text"] for span in found[key]] == [span.text for span in spans]
        assert [span["probability"] for span in found[key]] == pytest.approx([s.probability for s in spans], rel=1e-3)
    assert read(place / "out", "null_odds") == pytest.approx(dict(plain.null_odds), rel=1e-3, abs=1e-4)


def test_scores_are_those_at_the_saved_threshold_beside_the_best_ones(
    shown: str, place: Path, plain: Evaluation
) -> None:
    answers = {key: next(span.text for span in spans if span.text.strip()) for key, spans in plain.n_best.items()}
    corpus = plain.spans.corpus
    references = {corpus.id(question): corpus.references(question) for question in range(len(corpus))}
    expected = squad_v2_scores(answers, references, plain.null_odds, THRESHOLD)
    metrics = read(place / "out", "metrics")
    assert metrics["threshold"] == THRESHOLD != pytest.approx(metrics["best_f1_thresh"])
    for name in ("exact_match", "f1", "HasAns_f1", "NoAns_f1", "best_f1", "best_exact", "total"):
        assert metrics[name] == pytest.approx(expected[name])
    assert metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-4)
    predictions = read(place / "out", "predictions")
    silent = {key for key, odds in plain.null_odds.items() if odds > THRESHOLD}
    assert {key for key, text in predictions.items() if not text} == silent
    assert 0 < len(silent) < len(predictions), "the threshold decides nothing"
    intervals = read(place / "out", "intervals")
    assert intervals["f1"]["mean"] == pytest.approx(metrics["f1"])
    assert intervals["f1"]["low"] <= metrics["f1"] <= intervals["f1"]["high"]


def test_report_is_about_the_run_with_its_learning_curves(shown: str, place: Path) -> None:
    page = Page((place / "out" / "report.html").read_text(encoding="utf-8"))
    assert page.all("h1")[0].text == f"{place / 'run'} on {place / 'dev.json'}"
    assert {"comparison", "learning", "no-answer", "errors"} <= {item.attributes["id"] for item in page.all("section")}
    assert f"{place / 'out' / 'report.html'}" in shown


def test_models_are_compared_on_the_same_questions(shown: str, place: Path) -> None:
    found = read(place / "out", "comparison")
    mine, others = read(place / "out", "metrics"), read(place / "out" / "against", "metrics")
    assert found["against"] == str(place / "other")
    assert others["threshold"] == others["best_f1_thresh"]
    for name, difference in found["differences"].items():
        assert difference["mean"] == pytest.approx(mine[name] - others[name])
        assert difference["low"] <= difference["mean"] <= difference["high"]
    won = sum(flip["won"] for flip in found["flips"])
    lost = len(found["flips"]) - won
    assert found["flips"]
    assert (won - lost) / 24 == pytest.approx((mine["exact_match"] - others["exact_match"]) / 100)
    predictions = [read(folder, "predictions") for folder in (place / "out", place / "out" / "against")]
    for flip in found["flips"]:
        both = [texts[flip["id"]] for texts in predictions]
        assert both == [flip["prediction"], flip["prediction_against"]]
        assert both[0] != both[1]
    assert f"{won} questions that A answers exactly and B does not" in shown
    assert "the best one for these very questions, which flatters" in shown


def test_one_worker_finds_what_two_find(
    shown: str, place: Path, options: Callable[..., EvaluationOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A relative path means nothing in a worker's own working directory.
    monkeypatch.chdir(place)
    alone = summary(
        evaluate(options(model="run", out=Path("alone"), cluster=ClusterConfig(num_workers=1, cpus_per_worker=1)))
    )
    assert read(place / "alone", "predictions") == read(place / "out", "predictions")
    assert_same_metrics(place / "alone", place / "out")
    assert read(place / "alone", "intervals") == read(place / "out", "intervals")
    assert "exact_match" in alone
    assert not (place / "alone" / "comparison.json").exists()


def test_model_that_a_worker_cannot_load_ends_the_job_in_words(
    place: Path, options: Callable[..., EvaluationOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "other", place / "fleeting")
    start = workers.start_stream

    def remove_and_start() -> Any:
        shutil.rmtree(place / "fleeting")
        return start()

    monkeypatch.setattr(workers, "start_stream", remove_and_start)
    with pytest.raises(
        ModelError, match=r"node [\d.]+: cannot load the tokenizer .*/fleeting: there is no such folder"
    ):
        evaluate(options(model=str(place / "fleeting"), out=place / "never"))


@pytest.mark.parametrize("no_answer", [NoAnswer.ALLOWED, NoAnswer.NEVER])
def test_model_whose_scores_are_no_numbers_is_refused_by_name_with_the_question(
    place: Path, options: Callable[..., EvaluationOptions], no_answer: NoAnswer
) -> None:
    broken = place / "broken"
    if not broken.exists():
        model = load_model(ModelConfig(name=str(place / "other")))
        with torch.no_grad():
            model.qa_outputs.bias[1] = torch.nan
        shutil.copytree(place / "other", broken)
        model.save_pretrained(broken)
    words = r"^node \S+: \S*/broken: dev\.json data\[0\]\S*, id \S+: the model's scores are not finite numbers"
    with pytest.raises(ModelError, match=words):
        evaluate(options(model=str(broken), out=place / "none", no_answer=no_answer))
    assert not list((place / "none").iterdir())


def test_model_that_fails_on_a_window_is_refused_before_workers_start(
    options: Callable[..., EvaluationOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MISMATCHED.save(tmp_path / "model")
    monkeypatch.setattr(workers, "make_trainer", None)
    words = r"/model fails on a window of 96 tokens .*: AssertionError: .*\(lower --max-length, and see"
    with pytest.raises(ModelError, match=words):
        evaluate(options(model=str(tmp_path / "model"), max_length=96, stride=16))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "/no/such/model"}, ModelError, "cannot load the tokenizer /no/such/model: there is no such folder"),
        (
            {"against": "/no/such/model"},
            ModelError,
            "cannot load the tokenizer /no/such/model: there is no such folder",
        ),
        ({"data": "/no/such.json"}, DataError, "/no/such.json"),
        ({"max_length": 513}, ConfigError, "--max-length=513 is beyond the 512 tokens that .*run takes"),
        ({"out": Path("/dev/null/out")}, StorageError, "--out=/dev/null/out cannot be written: Not a directory"),
        ({"precision": AnswerPrecision.FP16}, ConfigError, "^--precision=fp16 needs a GPU"),
        ({"n_best": 0}, ConfigError, "^--n-best=0 must be at least 1"),
        ({"max_length": 8}, ConfigError, r"^--stride=8 must be in \[0, --max-length=8\)"),
    ],
    ids=["model", "other model", "data", "window", "folder", "precision", "n-best", "stride"],
)
def test_mistake_is_found_before_anything_is_computed(
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
    options: Callable[..., EvaluationOptions],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "make_trainer", None)
    with pytest.raises(error, match=words):
        evaluate(dataclasses.replace(options(), **changes))


def test_record_of_a_run_is_not_overwritten(
    place: Path, options: Callable[..., EvaluationOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "run")
    with pytest.raises(StorageError, match="--out=evaluation is where a training run keeps its own predictions"):
        evaluate(options(model=".", out=Path("evaluation")))
    assert not Path("evaluation").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"step": 1, "train_loss": 2.0}\n{"epoch": 2}\n[]\n', [{"step": 1, "train_loss": 2.0}]),
        ('{"step": 1}\n{"st', []),
    ],
    ids=["of another tool", "torn"],
)
def test_history_that_is_not_a_runs_is_passed_over(tmp_path: Path, content: str, expected: list[object]) -> None:
    (tmp_path / "metrics.jsonl").write_text(content)
    assert workers.run_history(str(tmp_path)) == workers.run_history(str(tmp_path / "model")) == expected


def test_data_without_answers_cannot_measure_a_model(place: Path, options: Callable[..., EvaluationOptions]) -> None:
    content = json.loads((place / "dev.json").read_text())
    for paragraph in content["data"][0]["paragraphs"]:
        paragraph["qas"] = [qa for qa in paragraph["qas"] if qa["is_impossible"]]
    content["data"][0]["paragraphs"] = [p for p in content["data"][0]["paragraphs"] if p["qas"]]
    (place / "unanswerable.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"unanswerable\.json has no question with an answer"):
        evaluate(options(data=str(place / "unanswerable.json")))


def test_rows_that_are_left_out_are_told_for_each_model_and_do_not_stay(
    place: Path, options: Callable[..., EvaluationOptions], shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads((place / "dev.json").read_text())
    paragraphs = content["data"][0]["paragraphs"]
    paragraphs[1]["qas"][0]["question"] = " "
    # BERT's tokenizer drops it; RoBERTa's, of bytes, makes tokens of it.
    paragraphs[2] = {"context": "\u200b", "qas": [{"id": "blank", "question": "Who?", "answers": []}]}
    (place / "bad.json").write_text(json.dumps(content))
    FAMILIES["roberta"].save(place / "bytes")
    save_scattered(place / "bytes" / "model", place / "bytes", seed=3, threshold=None)
    out = place / "again"
    shutil.copytree(place / "out", out)
    chosen = {"data": str(place / "bad.json"), "against": str(place / "bytes" / "model"), "out": out}
    with caplog.at_level(logging.WARNING), pytest.raises(DataError, match="of which 22 are the same"):
        evaluate(options(**chosen, on_bad_row=BadRows.SKIP))
    mine, others = (read_strictly(folder / "bad_rows.jsonl") for folder in (out, out / "against"))
    assert [problem["field"] for problem in mine] == ["question", "context"]
    assert [problem["field"] for problem in others] == ["question"]
    for number, folder in ((2, out), (1, out / "against")):
        line = f"{number} rows cannot be used and were left out; {folder / 'bad_rows.jsonl'} says why"
        assert line in caplog.messages
    alone = ClusterConfig(num_workers=1, cpus_per_worker=1)
    evaluate(options(out=out, cluster=alone))
    assert not {"bad_rows.jsonl", "against", "comparison.json"} & {path.name for path in out.iterdir()}
    assert_same_metrics(out, place / "out")
