"""The course of a sweep: what is tried, what is never begun, and what is known after a restart."""

import logging
from pathlib import Path

import pytest
from sweeps import GOAL

from qa_ray.storage.run_folder import RunFolder
from qa_ray.tuning.conductor import Conductor
from qa_ray.tuning.history import History, Status
from qa_ray.tuning.options import SamplerKind, TuneConfig
from qa_ray.tuning.samplers import make_sampler
from qa_ray.tuning.space import Parameters, read_space

SPACE = read_space(["window.stride=choice(8, 16, 900)"])
TUNE = TuneConfig(sampler=SamplerKind.GRID, num_trials=9)


def refuse_wide(point: Parameters) -> str | None:
    return "too wide" if point["window.stride"] == 900 else None


def conductor(folder: Path, tune: TuneConfig = TUNE) -> Conductor:
    history = History(RunFolder(str(folder), "sweep"))
    defaults: Parameters = {"window.stride": 128}
    return Conductor(history, make_sampler(SPACE, tune, GOAL), refuse_wide, defaults=defaults, tune=tune, goal=GOAL)


def test_default_comes_first_and_what_cannot_run_is_pruned_without_a_trial(tmp_path: Path) -> None:
    made = conductor(tmp_path)
    given = [record.parameters["window.stride"] for _ in range(5) if (record := made.next_trial()) is not None]
    assert given == [128, 8, 16]
    assert [(one.status, one.reason) for one in made.history][3] == (Status.PRUNED, "too wide")


def test_number_of_trials_counts_pruned_ones(tmp_path: Path) -> None:
    made = conductor(tmp_path, TuneConfig(sampler=SamplerKind.GRID, num_trials=2, include_default=False))
    assert [made.next_trial() is not None for _ in range(3)] == [True, True, False]


def test_restart_gives_out_what_was_running_and_nothing_that_has_ended(tmp_path: Path) -> None:
    made = conductor(tmp_path)
    for _ in range(2):
        made.next_trial()
    made.evaluated(1, {1: {"eval_f1": 50.0}}, 3.5)
    made.ended(0, Status.FAILED, "ran out of luck")
    again = conductor(tmp_path)
    assert list(again.history) == list(made.history)
    record = again.next_trial()
    assert record is not None
    assert (record.number, record.evaluations, record.seconds_to_first_step) == (1, {1: {"eval_f1": 50.0}}, 3.5)
    following = again.next_trial()
    assert following is not None
    assert following.number == 2


def test_best_trial_is_a_finished_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = conductor(tmp_path)
    ends = [(40.0, Status.FINISHED), (60.0, Status.STOPPED), (50.0, Status.FINISHED)]
    with caplog.at_level(logging.INFO, "qa_ray"):
        for number, (score, status) in enumerate(ends):
            made.next_trial()
            made.begun(number)
            made.evaluated(number, {1: {"eval_f1": score - 5}, 2: {"eval_f1": score}}, None)
            made.ended(number, status)
    best = made.history.best(GOAL)
    assert best is not None
    assert (best.number, best.best_epoch(GOAL), best.score(GOAL)) == (2, 2, 50.0)
    said = [line for line in caplog.messages if "epoch 2" in line]
    assert said == [
        "trial-000: epoch 2, f1 40.00",
        "trial-001: epoch 2, f1 60.00 (better than any trial before)",
        "trial-002: epoch 2, f1 50.00 (better than any trial before)",
    ]
