"""Predictions in files, scored by the job without a cluster: files, report, comparison, and what is refused."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from pages import Page
from strict import read

from qa_ray.api import evaluate as evaluate_from_python
from qa_ray.config.policies import BadRows, Language, NoAnswer
from qa_ray.errors import ConfigError, DataError, StorageError
from qa_ray.evaluation.job import evaluate
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.evaluation.report import summary

CONTEXT = "Ada went to Rome by train, Bo to Bern, and nobody to Lima."
GOLD = {"q0": ["Rome"], "q1": ["to Bern", "Bern"], "q2": [], "q3": ["Ada"]}
MINE = {"q0": "Rome", "q1": "Bern, and", "q2": "", "q3": "Bo"}
OTHERS = {"q0": "train", "q1": "Bern", "q2": "Lima", "q3": "Bo"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    questions = [
        {
            "id": key,
            "question": "Who went where?",
            "answers": [{"text": text, "answer_start": CONTEXT.index(text)} for text in texts],
        }
        for key, texts in GOLD.items()
    ]
    write(tmp_path / "dev.json", {"data": [{"paragraphs": [{"context": CONTEXT, "qas": questions}]}]})
    write(tmp_path / "mine.json", MINE)
    write(tmp_path / "others.json", OTHERS)
    return tmp_path


@pytest.fixture
def options(place: Path) -> Callable[..., EvaluationOptions]:
    return partial(
        EvaluationOptions,
        predictions=place / "mine.json",
        data=str(place / "dev.json"),
        out=place / "out",
        num_resamples=200,
    )


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def test_scores_files_and_report_need_no_cluster_and_no_model(
    place: Path, options: Callable[..., EvaluationOptions]
) -> None:
    before = ray.is_initialized()  # by tests before this one
    result = evaluate(options())
    assert ray.is_initialized() is before
    # q0 and q2 are exact; q1 shares one word of two with the better reference; q3 is wrong.
    assert result.scores == pytest.approx(
        {
            "exact_match": 50,
            "f1": 100 * (1 + 2 / 3 + 1 + 0) / 4,
            "HasAns_exact": 100 / 3,
            "HasAns_f1": 100 * (1 + 2 / 3) / 3,
            "NoAns_exact": 100,
            "NoAns_f1": 100,
        }
    )
    assert {path.name for path in (place / "out").iterdir()} == {
        "predictions.json",
        "metrics.json",
        "intervals.json",
        "report.html",
    }
    assert read(place / "out" / "predictions.json") == MINE
    metrics = read(place / "out" / "metrics.json")
    assert metrics.keys() == {
        "exact_match", "f1", "total", "language",
        *(f"{group}_{score}" for group in ("HasAns", "NoAns") for score in ("exact", "f1", "total")),
    }  # fmt: skip
    interval = read(place / "out" / "intervals.json")["f1"]
    assert 0 <= interval["low"] < interval["mean"] < interval["high"] <= 100
    shown = summary(result)
    assert "   4 questions, scored by SQuAD's definition" in shown
    assert "loss" not in shown
    assert "threshold" not in shown


def test_page_shows_what_is_known_and_no_more(place: Path, options: Callable[..., EvaluationOptions]) -> None:
    evaluate(options())
    page = Page((place / "out" / "report.html").read_text("utf-8"))
    assert [item.attributes.get("id") for item in page.all("section")] == ["scores", "slices", "errors"]
    examples = page.data("error-data")["examples"]
    assert [(one["id"], one["probability"], one["predicted_span"]) for one in examples] == [
        ("q3", None, [27, 29]),
        ("q1", None, [33, 42]),
    ]
    assert "surest" not in page.by_id("errors").text
    assert "mine.json" in (place / "out" / "report.html").read_text("utf-8")


def test_odds_give_thresholds_and_their_curves(place: Path, options: Callable[..., EvaluationOptions]) -> None:
    odds = write(place / "odds.json", {"q0": -3, "q1": -1.5, "q2": 2, "q3": 1})
    result = evaluate(options(null_odds=odds))
    assert result.scores["exact_match"] == 50, "the texts stand as they are"
    metrics = read(place / "out" / "metrics.json")
    # Up to -1.5 an answer is right or nearly so; beyond, it matters no more.
    assert (metrics["best_f1_thresh"], metrics["best_f1"]) == (-0.25, pytest.approx(100 * (2 + 2 / 3) / 4))
    assert "threshold" not in metrics
    assert "the best no-answer threshold for these questions is" in summary(result)
    assert read(place / "out" / "null_odds.json") == {"q0": -3, "q1": -1.5, "q2": 2, "q3": 1}
    assert Page((place / "out" / "report.html").read_text("utf-8")).by_id("no-answer") is not None

    result = evaluate(options(null_odds=odds, no_answer_threshold=-2.0))
    assert read(place / "out" / "predictions.json") == {"q0": "Rome", "q1": "", "q2": "", "q3": ""}
    assert (result.scores["HasAns_exact"], result.scores["NoAns_exact"]) == (pytest.approx(100 / 3), 100)
    assert "no-answer threshold -2.000" in summary(result)


def test_two_files_are_compared_on_the_same_questions(place: Path, options: Callable[..., EvaluationOptions]) -> None:
    result = evaluate(options(against=str(place / "others.json")))
    assert result.comparison is not None
    assert result.comparison.differences["exact_match"].mean == 25
    found = read(place / "out" / "comparison.json")
    assert found["against"] == str(place / "others.json")
    assert [(flip["id"], flip["won"]) for flip in found["flips"]] == [("q0", True), ("q1", False), ("q2", True)]
    assert read(place / "out" / "against" / "predictions.json") == OTHERS
    assert f"B  {place / 'others.json'}" in summary(result)
    evaluate(options())
    assert not (place / "out" / "against").exists()


def test_v1_scores_leave_unanswerable_questions_out(place: Path, options: Callable[..., EvaluationOptions]) -> None:
    result = evaluate(options(no_answer=NoAnswer.NEVER))
    assert result.scores == pytest.approx({"exact_match": 100 / 3, "f1": 100 * (1 + 2 / 3) / 3})


def test_texts_are_compared_by_the_rule_of_the_language(place: Path, options: Callable[..., EvaluationOptions]) -> None:
    write(place / "mine.json", MINE | {"q1": "“Bern”"})
    assert evaluate(options()).scores["exact_match"] == 50
    assert evaluate(options(language=Language.GERMAN)).scores["exact_match"] == 75
    assert read(place / "out" / "metrics.json")["language"] == "de"


def test_evaluation_from_python_takes_predictions(place: Path) -> None:
    before = ray.is_initialized()
    result = evaluate_from_python(
        None, str(place / "dev.json"), predictions=str(place / "mine.json"), out=str(place / "out"), num_resamples=200
    )
    assert result.scores["exact_match"] == 50
    assert ray.is_initialized() is before


def test_command_scores_predictions(place: Path) -> None:
    script = "import sys; from qa_ray.cli.commands import evaluate; sys.exit(evaluate(sys.argv[1:]))"
    words = ["--predictions", "mine.json", "--data", "dev.json", "--num-resamples", "200"]
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=place, capture_output=True, text=True, check=True)
    assert re.search(r"exact_match +50\.00", done.stdout)
    assert (place / "evaluation" / "report.html").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"q0": "Rome"}, "mine.json has no prediction for 3 ids ('q1', 'q2', 'q3'): predict every question of --data"),
        (MINE | {"q9": "x"}, "mine.json has a prediction for 1 id ('q9') that cannot be found in --data"),
        (MINE | {"q1": 7}, "mine.json: prediction of 'q1'=7: expected text"),
        (MINE | {"q1": None}, "mine.json: prediction of 'q1'=None: expected text"),
        (MINE | {"q1": [{"text": "Bern"}]}, "mine.json: prediction of 'q1'=[{'text': 'Bern'}]: expected text"),
        ([MINE], "mine.json holds [{'q0': 'Rome'"),
    ],
    ids=["missing", "unknown", "number", "null", "n-best", "list"],
)
def test_predictions_that_cannot_be_scored_are_named(
    place: Path, options: Callable[..., EvaluationOptions], content: Any, message: str
) -> None:
    write(place / "mine.json", content)
    with pytest.raises(DataError, match=re.escape(message)):
        evaluate(options())


def test_files_that_cannot_be_read_are_named(place: Path, options: Callable[..., EvaluationOptions]) -> None:
    with pytest.raises(DataError, match=r"gone\.json cannot be read: No such file"):
        evaluate(options(predictions=place / "gone.json"))
    (place / "mine.json").write_text("{'q0': 'Rome'}")
    with pytest.raises(DataError, match=r"mine\.json is not JSON: .*; expected one JSON object with a value for each"):
        evaluate(options())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"q0": 1}, "odds.json has no no-answer score for 3 ids ('q1', 'q2', 'q3')"),
        (dict.fromkeys(GOLD, "1"), "odds.json: no-answer score of 'q0'='1': expected a number"),
        (dict.fromkeys(GOLD), "odds.json: no-answer score of 'q0'=None: expected a number"),
        (dict.fromkeys(GOLD, True), "odds.json: no-answer score of 'q0'=True: expected a number"),
    ],
)
def test_odds_that_cannot_be_used_are_named(
    place: Path, options: Callable[..., EvaluationOptions], content: Any, message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        evaluate(options(null_odds=write(place / "odds.json", content)))


def test_predictions_of_questions_that_are_left_out_are_told(
    place: Path, options: Callable[..., EvaluationOptions], caplog: pytest.LogCaptureFixture
) -> None:
    dev = read(place / "dev.json")
    dev["data"][0]["paragraphs"][0]["qas"][3]["answers"][0]["answer_start"] = 5
    write(place / "dev.json", dev)
    with pytest.raises(DataError, match="1 problem in the data"):
        evaluate(options())
    result = evaluate(options(on_bad_row=BadRows.SKIP))
    assert len(result.models[0].table) == 3
    assert "mine.json has a prediction for 1 id ('q3') that cannot be found in --data: left out" in caplog.text
    assert len((place / "out" / "bad_rows.jsonl").read_text().splitlines()) == 1
    assert len(evaluate(options(on_bad_row=BadRows.SKIP, max_examples=2)).models[0].table) == 2


def test_files_that_are_read_are_never_written_over(place: Path, options: Callable[..., EvaluationOptions]) -> None:
    with pytest.raises(StorageError, match=r"--out=.* would overwrite .*mine\.json, which is to be read"):
        evaluate(options(out=place))
    assert read(place / "mine.json") == MINE
    (place / "out" / "against").mkdir(parents=True)
    other = write(place / "out" / "against" / "predictions.json", OTHERS)
    with pytest.raises(StorageError, match=r"would overwrite .*against/predictions\.json"):
        evaluate(options(against=str(other)))


def test_question_without_an_answer_alone_measures_nothing(
    place: Path, options: Callable[..., EvaluationOptions]
) -> None:
    dev = read(place / "dev.json")
    dev["data"][0]["paragraphs"][0]["qas"] = dev["data"][0]["paragraphs"][0]["qas"][2:3]
    write(place / "dev.json", dev)
    write(place / "mine.json", {"q2": ""})
    with pytest.raises(DataError, match="has no question with an answer: there is nothing to measure predictions by"):
        evaluate(options())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "name a MODEL (a folder, a Hub id or an MLflow URI) or --predictions FILE, one of the two"),
        ({"model": ""}, "name a MODEL"),
        ({"model": "m", "predictions": Path("p.json")}, "one of the two"),
        ({"model": "m", "null_odds": Path("o.json")}, "--null-odds=o.json needs --predictions"),
        ({"predictions": Path("p.json"), "no_answer_threshold": 1.0}, "--no-answer-threshold=1.0 needs --null-odds"),
    ],
    ids=str,
)
def test_either_a_model_or_predictions_are_evaluated(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        EvaluationOptions(data="d", **given)


def test_other_file_is_known_from_a_model_by_its_being_there(place: Path) -> None:
    file = str(place / "others.json")
    assert EvaluationOptions(model="m", data="d", against=file).sources == ["m", Path(file)]
    assert EvaluationOptions(model="m", data="d", against=file).needs_cluster
    assert not EvaluationOptions(predictions=Path("p.json"), data="d", against=file).needs_cluster
    assert EvaluationOptions(predictions=Path("p.json"), data="d", against="runs/other").needs_cluster
