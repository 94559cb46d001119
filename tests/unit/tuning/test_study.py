"""The course of a sweep: what is tried, what is never begun, and what is known after a restart."""

import itertools
import logging
import math
import re
import shutil
from pathlib import Path

import pytest
from pages import Page
from strict import parse
from sweeps import F1

from qa_ray.config.fine_tuning import EvalConfig
from qa_ray.config.operation import RunConfig
from qa_ray.config.policies import BestBy
from qa_ray.errors import StorageError
from qa_ray.tracking.metrics import metrics_of
from qa_ray.tuning.figures import compared_epoch
from qa_ray.tuning.options import SamplerKind, SweepConfig, TuneConfig
from qa_ray.tuning.report import render, text_table
from qa_ray.tuning.space import Parameters
from qa_ray.tuning.study import Study
from qa_ray.tuning.trials import Status, TrialRecord

TUNE = TuneConfig(sampler=SamplerKind.GRID, num_trials=9)


def too_wide(point: Parameters) -> str | None:
    return "too wide" if point["window.stride"] == 900 else None


def study_in(folder: Path, tune: TuneConfig = TUNE) -> Study:
    run = RunConfig(name="sweep", storage_path=str(folder))
    return Study(SweepConfig(run=run, tune=tune, space=("window.stride=choice(8, 16, 900)",)))


def given(study: Study) -> list[TrialRecord]:
    return list(itertools.islice(iter(lambda: study.next_trial(too_wide), None), 9))


def test_default_comes_first_and_what_cannot_run_is_pruned_without_a_trial(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    first, *others = [record.parameters["window.stride"] for record in given(study)]
    assert (first, set(others)) == (128, {8, 16})
    pruned = [record for record in study.sweep.trials if record.status is Status.PRUNED]
    assert [(one.parameters["window.stride"], one.reason) for one in pruned] == [(900, "too wide")]


@pytest.mark.parametrize("num_trials", [1, 2, 3])
def test_number_of_trials_counts_pruned_ones(tmp_path: Path, num_trials: int) -> None:
    study = study_in(tmp_path, TuneConfig(sampler=SamplerKind.GRID, num_trials=num_trials, include_default=False))
    given(study)
    assert len(study.sweep.trials) == num_trials


def test_restart_gives_out_what_was_running_and_nothing_that_has_ended(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for _ in range(2):
        study.next_trial(too_wide)
    study.evaluated(1, {1: {"eval_f1": 50.0}}, 3.5)
    study.ended(0, Status.FAILED, "ran out of luck")
    again = study_in(tmp_path)
    assert again.sweep.trials == study.sweep.trials
    assert not again.finished
    record, *others = given(again)
    assert (record.number, record.evaluations, record.seconds_to_first_step) == (1, {1: {"eval_f1": 50.0}}, 3.5)
    assert 0 not in [other.number for other in others]
    for other in [record, *others]:
        again.ended(other.number, Status.FINISHED)
    assert study_in(tmp_path).finished
    assert given(study_in(tmp_path)) == []


def test_best_trial_is_a_finished_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = study_in(tmp_path, TuneConfig(sampler=SamplerKind.RANDOM))
    ends = [(40.0, Status.FINISHED), (60.0, Status.STOPPED), (50.0, Status.FINISHED)]
    with caplog.at_level(logging.INFO, "qa_ray"):
        for number, (score, status) in enumerate(ends):
            study.next_trial(lambda point: None)
            study.begun(number)
            study.evaluated(number, {1: {"eval_f1": score - 5}, 2: {"eval_f1": score}}, None)
            study.ended(number, status)
    best = study.sweep.best
    assert best is not None
    assert (best.number, best.best_epoch(F1), best.score(F1)) == (2, 2, 50.0)
    assert [line for line in caplog.messages if "epoch 2" in line] == [
        "trial-000: epoch 2, f1 40.00",
        "trial-001: epoch 2, f1 60.00 (better than any trial before)",
        "trial-002: epoch 2, f1 50.00 (better than any trial before)",
    ]


def test_write_that_fails_is_told_once_and_made_up_for_by_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = study_in(tmp_path)
    study.next_trial(too_wide)
    shutil.rmtree(tmp_path / "sweep")
    (tmp_path / "sweep").write_text("no folder")
    with caplog.at_level(logging.WARNING, "qa_ray"):
        study.evaluated(0, {1: {"eval_f1": 50.0}}, 3.5)
        study.ended(0, Status.FINISHED)
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "trials.json is not written; the sweep goes on, and tries again"
    ]
    with pytest.raises(StorageError, match=re.escape(f"run.storage_path={tmp_path} cannot be written")):
        study.write()
    (tmp_path / "sweep").unlink()
    study.next_trial(too_wide)
    assert study_in(tmp_path).sweep.trials == study.sweep.trials
    assert [record.status for record in study.sweep.trials][:2] == [Status.FINISHED, Status.RUNNING]


def test_evaluation_without_a_score_is_told_and_counts_for_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunConfig(name="sweep", storage_path=str(tmp_path))
    evaluate = EvalConfig(best_by=BestBy.LOSS)
    config = SweepConfig(run=run, tune=TUNE, space=("window.stride=choice(8, 16)",), evaluate=evaluate)
    study = Study(config)
    scores = {"eval_f1": 50.0, "eval_exact_match": 40.0}
    with caplog.at_level(logging.INFO, "qa_ray"):
        for number, losses in enumerate([(math.nan, 3.0), (2.0, math.nan), (math.inf,)]):
            study.next_trial(lambda point: None)
            for epoch, loss in enumerate(losses, start=1):
                found = metrics_of({"step": 1, "eval_loss": loss} | scores)
                study.evaluated(number, {epoch: found}, None)
            study.ended(number, Status.FINISHED)
    assert "trial-001: epoch 2, loss nan" in caplog.messages
    sweep = Study(config).sweep
    assert [record.score(sweep.objective) for record in sweep.trials] == [3.0, 2.0, None]
    assert sweep.best == sweep.trials[1]
    assert [record.number for record in sweep.evaluated] == [0, 1]
    assert compared_epoch(sweep) is None
    lines = text_table(sweep).splitlines()
    assert [line.split()[2:5] for line in lines[1:4]] == [["2", "50.00", "40.00"]] * 2 + [["1", "0:00", "finished"]]
    assert lines[-1] == "trial-001 has loss 2.00, the default setting 3.00."
    page = Page(render(sweep))
    figures = parse(page.by_id("figure-data").text)
    [over_epochs] = [figure for figure in figures if figure["layout"]["xaxis"]["title"].get("text") == "epoch"]
    assert [(trace["x"], trace["y"]) for trace in over_epochs["data"]] == [([2], [3.0]), ([1], [2.0])]
