"""What a sweep has to show: the table, the importance of fields, and the page with its pictures."""

import dataclasses

import pytest
from pages import Page
from sweeps import SPACE, night, sweep, trial

from qa_ray.config.fine_tuning import OptimConfig
from qa_ray.config.policies import Schedule
from qa_ray.runs.resume import TrainResult
from qa_ray.tuning.figures import compared_epoch, importance, rung_epochs
from qa_ray.tuning.options import SchedulerKind, TuneConfig
from qa_ray.tuning.report import render, summary, text_table
from qa_ray.tuning.trials import Status, Sweep, SweepResult, TrialRecord


def test_table_shows_values_scores_and_what_became_of_each_trial() -> None:
    lines = text_table(night()).splitlines()
    rows = [line.split() for line in lines]
    assert rows[0] == ["trial", "learning_rate", "stride", "epochs", "F1", "EM", "time", "result"]
    assert rows[1] == ["trial-000", "0.0002", "128", "2", "40.00", "30.00", "1:30", "finished", "(default)"]
    assert rows[2][-2:] == ["finished,", "best"]
    assert "failed: TrainingError: <the loss> is no number" in lines[6]
    assert "pruned: window.stride=128 leaves no room" in lines[7]
    assert lines[-2] == "trial-001 has f1 55.00, the default setting 40.00."
    assert lines[0].index("F1") == lines[2].index("55.00")


def test_summary_of_a_sweep_on_an_object_store_says_where_each_thing_lies() -> None:
    run = TrainResult(
        folder="s3://bucket/night/trials/trial-001?region=eu-west-1",
        epochs=2, step=20, before=None, best={}, examples=[], record="", ledger="", data="",
    )  # fmt: skip
    shown = summary(SweepResult(night(), run, "run 1", "s3://bucket/night/report.html?region=eu-west-1")).splitlines()
    assert "model   s3://bucket/night/trials/trial-001/model?region=eu-west-1" in shown
    assert "answers s3://bucket/night/trials/trial-001/evaluation/predictions.json?region=eu-west-1" in shown
    # Without the quotes, a shell would take the question mark for a pattern.
    assert shown[-1].strip() == f"qa-ray publish '{run.folder}' --repo-id USER/NAME"


def test_table_says_when_nothing_was_better_than_the_default() -> None:
    table = text_table(sweep(trial(0, 2e-4, 128, 60.0), trial(1, 1e-4, 32, 50.0)))
    assert table.splitlines()[-1] == "No trial was better than the default setting (f1 60.00)."


def test_table_says_how_far_a_default_came_that_was_stopped() -> None:
    table = text_table(sweep(trial(0, 2e-4, 128, 20.0, status=Status.STOPPED), trial(1, 1e-4, 32, 50.0)))
    assert "trial-001 has f1 50.00, the default setting 20.00 after 1 of 2 epochs." in table.splitlines()


def ten_trials() -> list[TrialRecord]:
    rates = [1e-5 * 1.6**number for number in range(10)]
    return [trial(number, rate, (32, 64)[number % 2], 10.0 + 5 * number) for number, rate in enumerate(rates)]


def shares(swept: Sweep, epoch: int) -> dict[str, float]:
    [bars] = importance(swept, epoch).data
    return dict(zip(bars.y, bars.x, strict=True))


def test_field_that_decides_the_score_is_the_most_important() -> None:
    found = shares(sweep(*ten_trials()), 1)
    assert found["optim.learning_rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


def test_importance_compares_trials_after_the_same_epoch() -> None:
    # After the first epoch the stride decides; a second one adds much, whoever has it.
    trials = [
        trial(number, 1e-5 * (number + 1), stride, stride, *((90.0,) if number < 3 else ()))
        for number, stride in enumerate([32, 64, 32, 64, 32, 64])
    ]
    assert compared_epoch(sweep(*trials)) == 1
    assert shares(sweep(*trials), 1)["window.stride"] > 0.8


@pytest.mark.parametrize(
    "trials",
    [ten_trials()[:3], [trial(number, 1e-4 + 1e-5 * number, 32, 50.0) for number in range(6)]],
    ids=["too few", "all the same"],
)
def test_importance_is_not_guessed_from_nothing(trials: list[TrialRecord]) -> None:
    assert compared_epoch(sweep(*trials)) is None


@pytest.mark.parametrize(
    ("tune", "epochs"),
    [(TuneConfig(), [1]), (TuneConfig(scheduler=SchedulerKind.NONE), []), (TuneConfig(grace=2), [])],
    ids=["asha", "none", "grace until the end"],
)
def test_rungs_are_epochs_after_which_a_trial_may_be_stopped(tune: TuneConfig, epochs: list[int]) -> None:
    assert rung_epochs(sweep(trial(0, 1e-4, 32, 1.0), tune=tune)) == epochs


def test_trials_that_were_stopped_on_a_falling_schedule_are_told_of() -> None:
    stopped = night()
    assert "had not come to the end of optim.schedule=linear" in text_table(stopped)
    wsd = dataclasses.replace(stopped.config, optim=OptimConfig(schedule=Schedule.WSD))
    assert "had not come" not in text_table(dataclasses.replace(stopped, config=wsd))
    assert "had not come" not in text_table(sweep(trial(0, 1e-4, 32, 1.0)))


def test_page_holds_all_trials_and_pictures_and_shows_texts_as_they_are() -> None:
    page = Page(render(night()))
    [table] = page.all("table")
    assert len(page.all("tr")) == 8
    assert "<the loss> is no number" in table.text
    headings = [heading.text for heading in page.all("h3")]
    assert headings == [
        "Over trials", "Over time", "Over epochs", "Parallel coordinates", "Learning rate x stride", "Importance",
    ]  # fmt: skip
    figures = page.data("figure-data")
    assert len(figures) == len(headings)
    assert "after epoch 1, 3 of 5 trials went on" in page.by_id("scores").text
    assert "little more than a hint" in page.by_id("values").text
    assert page.all("a", class_="skip")[0].attributes["href"] == "#trials"


def test_pictures_have_every_trial_that_was_scored_at_its_values() -> None:
    own = trial(0, 2.0, 100, 30.0, 40.0)  # outside of the space
    by_trial, by_time, by_epoch, coordinates, by_values, _ = Page(render(sweep(own, *night().trials[1:]))).data(
        "figure-data"
    )
    best, scores = by_trial["data"]
    assert (scores["x"], scores["y"]) == ([0, 1, 2, 3, 4], [40.0, 55.0, 10.0, 50.0, 5.0])
    assert scores["marker"]["symbol"] == ["circle", "circle", "x", "circle", "x"]
    assert best["y"] == [40.0, 55.0, 55.0, 55.0, 55.0]
    assert by_time["data"][1]["x"] == pytest.approx([1.5, 3.17, 4.83, 6.5, 8.17], abs=0.01)
    assert [(line["name"], line["y"]) for line in by_epoch["data"]][1:3] == [
        ("trial-001", [35.0, 55.0]),
        ("trial-002", [10.0]),
    ]
    assert [rung["x0"] for rung in by_epoch["layout"]["shapes"]] == [1]
    lines = sorted((line["y"][0], line["line"]["color"]) for line in coordinates["data"][:-1])
    assert [score for score, _ in lines] == pytest.approx([0, 0.1, 0.7, 0.9, 1])
    assert [colour for _, colour in lines] == [by_epoch["data"][number]["line"]["color"] for number in (4, 2, 0, 3, 1)]
    points = by_values["data"][1]
    assert list(zip(points["x"], points["y"], strict=True))[:2] == [(2.0, 100), (4e-4, 32)]
    assert by_values["layout"]["xaxis"]["type"] == "log"


def test_map_of_other_fields_names_its_axes_as_they_are() -> None:
    points = [{"optim.schedule": "linear", "model.dropout": 0.1}, {"optim.schedule": "cosine", "model.dropout": 0.2}]
    evaluations = {1: {"eval_f1": 1.0, "eval_exact_match": 0.0}}
    trials = [TrialRecord(number, point, evaluations=evaluations) for number, point in enumerate(points)]
    space = ("optim.schedule=choice(linear, cosine)", "model.dropout=uniform(0, 0.3)")
    page = Page(render(sweep(*trials, space=space)))
    assert page.all("h3")[-1].text == "Dropout x schedule"
    layout = page.data("figure-data")[-1]["layout"]
    assert [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")] == ["model.dropout", "optim.schedule"]
    assert page.data("figure-data")[-1]["data"][1]["x"] == [0.1, 0.2]


def test_no_picture_needs_code_that_the_page_forbids() -> None:
    kinds = {trace["type"] for figure in Page(render(night())).data("figure-data") for trace in figure["data"]}
    assert kinds == {"scatter", "contour", "bar"}


def test_page_of_a_sweep_without_a_score_still_tells_what_happened() -> None:
    page = Page(render(sweep(trial(0, 1e-4, 32, status=Status.FAILED, reason="no memory"))))
    assert "no memory" in page.by_id("trials").text
    assert page.data("figure-data") == []


def test_page_of_one_field_has_no_map() -> None:
    record = TrialRecord(
        0, {"window.stride": 32}, Status.FINISHED, evaluations={1: {"eval_f1": 1.0, "eval_exact_match": 0.0}}
    )
    page = render(sweep(record, space=SPACE[1:]))
    assert "<h3>Parallel coordinates</h3>" in page
    assert " x stride</h3>" not in page
