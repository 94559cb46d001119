"""The jobs called from Python, with questions in memory, as a notebook does it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset
from ray_runs import NAMES, outcome_of, questions, small_config

from qa_ray import evaluate, predict, train, tune
from qa_ray.errors import ConfigError, DataError
from qa_ray.runs.driver import TrainResult

pytestmark = pytest.mark.usefixtures("ray_cluster")


def rows(file: str, names: list[str]) -> list[dict[str, Any]]:
    """The questions that `ray_runs.write_squad` writes, as flat rows."""
    return [
        {
            "id": f"{file}-{number}",
            "context": row["context"],
            "question": row["question"],
            "answers": {"text": [row["text"]], "answer_start": [str(row["context"]).index(str(row["text"]))]}
            if row["text"]
            else {"text": [], "answer_start": []},
        }
        for number, row in enumerate(questions(names))
    ]


@pytest.fixture(scope="module")
def splits() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return rows("train", NAMES[:7]), rows("validation", NAMES[7:])


@pytest.fixture(scope="module")
def told(place: Path, splits: tuple[Any, Any], trained: TrainResult) -> TrainResult:
    """The run of the other tests, made from questions in memory."""
    train_rows, validation_rows = splits
    config = small_config(place, "told", tracking={"enabled": False})
    return train(config, train_data=Dataset.from_list(train_rows), validation_data=pd.DataFrame(validation_rows))


def test_questions_in_memory_train_what_those_of_a_file_train(told: TrainResult, trained: TrainResult) -> None:
    assert told.data == trained.data
    assert told.ledger == trained.ledger
    assert told.scores == trained.scores
    assert outcome_of(Path(told.folder))["weights"] == outcome_of(Path(trained.folder))["weights"]


def test_result_shows_its_report_and_answers(told: TrainResult) -> None:
    assert told.scores["f1"] == told.best["eval_f1"]
    assert told.report.read() == (Path(told.folder) / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert told.report._repr_html_().startswith("<iframe srcdoc=")
    answer = told.answerer(device="cpu")(question="Who went to Rome?", context="Ada went to Rome by train.")
    assert answer.keys() == {"score", "start", "end", "answer"}


def test_evaluation_and_prediction_take_a_result_and_rows(
    told: TrainResult, splits: tuple[Any, Any], tmp_path: Path
) -> None:
    _, validation = splits
    measured = evaluate(told, validation, out=str(tmp_path / "measured"), num_resamples=200)
    assert measured.scores["f1"] == pytest.approx(told.scores["f1"], abs=1e-3)
    asked = [{"question": row["question"], "context": row["context"]} for row in validation]
    answered = predict(told, asked, out=str(tmp_path / "answers"), precision="fp32")
    assert answered.answers().column("question").to_pylist() == [row["question"] for row in asked]
    again = predict(told, asked, out=str(tmp_path / "answers"), precision="fp32")
    assert again.num_answered == 0
    assert again.answers() == answered.answers()


def test_mistakes_are_told_in_words(place: Path, tmp_path: Path) -> None:
    config = small_config(place, "never")
    with pytest.raises(ConfigError, match=r"optim\.learning_rte is no field: did you mean optim\.learning_rate"):
        train(config, optim={"learning_rte": 1})
    with pytest.raises(ConfigError, match="give both train_data and validation_data"):
        train("bert_base_squad", train_data=[{"id": "a"}])
    with pytest.raises(ConfigError, match="there is no recipe 'smaple': did you mean sample"):
        train("smaple")
    with pytest.raises(DataError, match="questions cannot be a int"):
        evaluate("runs/x", 3, out=str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"topk is no field: did you mean top_k\?"):
        predict("runs/x", "d", out=str(tmp_path), topk=2)


@pytest.mark.long
def test_sweep_is_searched_over_a_space_of_plain_values(place: Path, splits: tuple[Any, Any]) -> None:
    train_rows, validation_rows = splits
    found = tune(
        small_config(place, "searched", tracking={"enabled": False}),
        space={"optim.learning_rate": "loguniform(1e-4, 1e-2)", "window.stride": [4, 8]},
        train_data=train_rows,
        validation_data=validation_rows,
        tune={"num_trials": 2, "sampler": "random"},
    )
    assert len(found.sweep.trials) == 2
    assert {record.parameters["window.stride"] for record in found.sweep.trials} <= {4, 8, 2}
    assert found.scores == found.best.scores
    assert "Trials with their values" in found.report.read()
