"""What an evaluation prints and leaves: the tables as they stand on the terminal, and the files."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from evaluations import Asked, evaluation_of
from pages import Page
from strict import parse, read

from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import Config, ModelConfig
from qa_ray.config.policies import Language
from qa_ray.evaluation.report import EvaluatedModel, EvaluationResult, save_outcome, summary
from qa_ray.scores.intervals import Comparison, Difference, Interval, compare

DRAWS = {"num_resamples": 100, "seed": 0}
TOWNS = [
    Asked("Where did Ada go?", "Ada went to Rome by train.", "Rome", "Rome"),
    Asked("Where did Bo go?", "Bo went to Bern late.", "Bern", "late"),
    Asked("Where did Cem go?", "Cem went to Lima.", None, "Lima", null_odds=4),
]


def outcome(name: str, asked: list[Asked], *, no_answer: bool = True) -> EvaluatedModel:
    evaluation, corpus, windows = evaluation_of(asked, no_answer=no_answer)
    config = Config(model=ModelConfig(name=name), data=DataConfig(validation="dev.json"))
    return EvaluatedModel(name=name, config=config, evaluation=evaluation, corpus=corpus, windows=windows, history=())


def result(models: list[EvaluatedModel], comparison: Comparison | None = None) -> EvaluationResult:
    return EvaluationResult(models=models, comparison=comparison, folder=Path("out"), **DRAWS)


@pytest.fixture(scope="module")
def mine() -> EvaluatedModel:
    return outcome("runs/one", TOWNS)


@pytest.fixture(scope="module")
def other() -> EvaluatedModel:
    return outcome("runs/two", [Asked("Where did Ada go?", TOWNS[0].context, "Rome", "train"), *TOWNS[1:]])


def test_scores_of_one_model_stand_in_a_table(mine: EvaluatedModel) -> None:
    lines = summary(result([mine])).splitlines()
    assert lines[1] == "             percent  95% interval"
    assert lines[2].startswith("exact_match    66.67  [")
    assert lines[2].endswith(", 100.0]")
    assert [line.split()[0] for line in lines[3:8]] == ["f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1"]
    assert lines[9] == "runs/one"
    assert lines[10] == "   3 questions, loss 0.500, scored by SQuAD's definition"
    assert lines[11] == "   no-answer threshold 1.000; the best one for these questions is -0.500, with F1 66.67"
    assert lines[-2:] == ["report  out/report.html", "answers out/predictions.json"]


def test_rule_of_the_scores_is_told_on_the_terminal_in_the_page_and_in_the_files(tmp_path: Path) -> None:
    evaluation, corpus, windows = evaluation_of(TOWNS, language=Language.GERMAN)
    found = dataclasses.replace(outcome("m", TOWNS), evaluation=evaluation, corpus=corpus, windows=windows)
    assert "scored by MLQA's rule for de" in summary(result([found]))
    save_outcome(found, tmp_path, data="dev.json", comparison=None, **DRAWS)
    assert "Texts are compared by MLQA&#x27;s rule for de." in (tmp_path / "report.html").read_text("utf-8")
    assert read(tmp_path / "metrics.json")["language"] == "de"


def test_scores_without_a_threshold_are_those_of_v1() -> None:
    shown = summary(result([outcome("m", TOWNS[:2], no_answer=False)]))
    assert "HasAns" not in shown
    assert "threshold" not in shown


def test_two_models_stand_side_by_side(mine: EvaluatedModel, other: EvaluatedModel) -> None:
    comparison = compare(mine.table, other.table, other.name, **DRAWS)
    lines = summary(result([mine, other], comparison)).splitlines()
    assert lines[1].split() == ["A", "B", "A", "-", "B", "A", "better"]
    row = lines[2]
    assert row.split()[:2] == ["exact_match", "66.67"]
    assert [row[place : place + 7].strip() for place in (13, 38, 63)] == ["66.67", "33.33", "+33.33"]
    # Every column's number ends below the name of the column.
    assert [lines[1][place - 1] for place in (20, 45)] == ["A", "B"]
    assert lines[1][63:70] == "  A - B"
    shown = "\n".join(lines)
    assert "By F1, these questions do not tell which model is better" in shown
    assert "1 questions that A answers exactly and B does not\n   Where did Ada go?\n      A: Rome   B: train" in shown
    assert "0 questions that B answers exactly and A does not" in shown
    assert shown.index("A  runs/one") < shown.index("B  runs/two")


def test_no_more_than_three_flips_are_shown_and_silence_is_told(mine: EvaluatedModel) -> None:
    asked = [Asked(f"Where is {place}?", "Ada went to Rome.", "Rome", "Rome") for place in range(5)]
    silent = [Asked(item.question, item.context, "Rome", "Rome", null_odds=9) for item in asked]
    one, two = outcome("one", asked), outcome("two", silent)
    shown = summary(result([one, two], compare(one.table, two.table, "two", **DRAWS)))
    assert "5 questions that A answers exactly and B does not" in shown
    assert shown.count("A: Rome   B: (no answer)") == 3
    assert "By F1, A is better" in shown


def test_files_hold_the_intervals_and_the_comparison(
    mine: EvaluatedModel, other: EvaluatedModel, tmp_path: Path
) -> None:
    comparison = compare(mine.table, other.table, other.name, **DRAWS)
    save_outcome(mine, tmp_path, data="dev.json", comparison=comparison, **DRAWS)
    intervals = json.loads((tmp_path / "intervals.json").read_text())
    assert intervals["exact_match"]["mean"] == pytest.approx(200 / 3)
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["against"] == "runs/two"
    assert found["scores"]["f1"]["mean"] == pytest.approx(100 / 3)
    assert found["flips"] == [
        {
            "id": "q0",
            "won": True,
            "question": "Where did Ada go?",
            "references": ["Rome"],
            "prediction": "Rome",
            "prediction_against": "train",
        }
    ]
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<dd>3 in " in page
    assert "<dd>384 tokens, 128 of them shared</dd>" in page


def test_comparison_of_an_earlier_evaluation_does_not_stay(mine: EvaluatedModel, tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("{}")
    mine.evaluation.save(tmp_path / "against")
    (tmp_path / "against" / "bad_rows.jsonl").write_text("{}\n")
    (tmp_path / "against" / "notes.txt").write_text("mine")
    save_outcome(mine, tmp_path, data="dev.json", comparison=None, **DRAWS)
    assert [path.name for path in (tmp_path / "against").iterdir()] == ["notes.txt"]
    (tmp_path / "against" / "notes.txt").unlink()
    save_outcome(mine, tmp_path, data="dev.json", comparison=None, **DRAWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "intervals.json",
        "metrics.json",
        "nbest_predictions.json",
        "null_odds.json",
        "predictions.json",
        "report.html",
        "spans.safetensors",
    ]


def test_files_and_the_page_are_strict_json_where_a_score_has_no_interval(
    mine: EvaluatedModel, other: EvaluatedModel, tmp_path: Path
) -> None:
    comparison = dataclasses.replace(
        compare(mine.table, other.table, other.name, **DRAWS),
        scores={"f1": Interval(50.0, math.nan, math.nan)},
        differences={"f1": Difference(1.0, math.nan, math.nan, math.nan)},
    )
    history = [{"time": 1.0, "phase": "train", "step": step, "train_loss": loss} for step, loss in [(1, None), (2, 3)]]
    outcome = dataclasses.replace(mine, history=history)
    save_outcome(outcome, tmp_path, data="dev.json", comparison=comparison, **DRAWS)
    assert read(tmp_path / "comparison.json")["scores"] == {"f1": {"mean": 50.0, "low": None, "high": None}}
    assert {path.stem for path in tmp_path.glob("*.json") if read(path)} >= {"metrics", "intervals", "comparison"}
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    figures, errors = (parse(page.by_id(key).text) for key in ("figure-data", "error-data"))
    assert errors["examples"]
    [curve] = [trace for figure in figures for trace in figure["data"] if trace.get("name") == "training"]
    assert (curve["x"], curve["y"]) == ([2], [3])
