"""The best trials are repeated with other seeds: which, in what order, and what is made of their scores."""

import dataclasses
from pathlib import Path

import pytest
from sweeps import night, sweep, trial

from qa_ray.config.operation import RunConfig
from qa_ray.errors import ConfigError
from qa_ray.tuning.options import SamplerKind, SweepConfig, TuneConfig
from qa_ray.tuning.report import render, text_table
from qa_ray.tuning.seeds import rank
from qa_ray.tuning.study import Study
from qa_ray.tuning.trials import Status, Sweep, TrialRecord

REPEATED = TuneConfig(num_trials=4, sampler=SamplerKind.RANDOM, repeats=3, finalists=2)


def studied(tmp_path: Path, tune: TuneConfig = REPEATED) -> Study:
    run = RunConfig(name="sweep", storage_path=str(tmp_path))
    return Study(SweepConfig(run=run, tune=tune, space=("window.stride=choice(8, 16, 32, 64)",)))


def end(study: Study, number: int, score: float, status: Status = Status.FINISHED) -> None:
    study.evaluated(number, {1: {"eval_f1": score}}, None)
    study.ended(number, status)


def search(study: Study, *scores: float) -> None:
    for number, score in enumerate(scores):
        record = study.next_trial(lambda point: None)
        assert record is not None
        assert record.number == number
        assert not study.repeats_left
        end(study, number, score, Status.STOPPED if score < 20 else Status.FINISHED)
    assert study.next_trial(lambda point: None) is None


def repeat(study: Study, score: float) -> TrialRecord:
    record = study.next_trial(lambda point: None, repeats=True)
    assert record is not None
    end(study, record.number, score)
    return record


def test_best_finished_trials_are_repeated_seed_by_seed(tmp_path: Path) -> None:
    study = studied(tmp_path)
    search(study, 50.0, 10.0, 60.0, 40.0)
    assert study.repeats_left
    assert not study.finished
    repeats = [repeat(study, 50.0 + number) for number in range(4)]
    assert [(one.number, one.repeats, one.parameters["train.seed"]) for one in repeats] == [
        (4, 2, 43), (5, 0, 43), (6, 2, 44), (7, 0, 44),
    ]  # fmt: skip
    searched = study.sweep.trials[2].parameters
    assert repeats[0].parameters == searched | {"train.seed": 43}
    assert study.next_trial(lambda point: None, repeats=True) is None
    assert study.finished
    assert not study.repeats_left
    # More trials are searched as if there had been no repeats.
    longer = studied(tmp_path, dataclasses.replace(REPEATED, num_trials=5))
    without = studied(tmp_path / "without", TuneConfig(num_trials=5, sampler=SamplerKind.RANDOM))
    search(without, 50.0, 10.0, 60.0, 40.0, 30.0)
    record = longer.next_trial(lambda point: None)
    assert record is not None
    assert (record.number, record.parameters) == (8, without.sweep.trials[4].parameters)


def test_repeat_that_was_under_way_goes_on_and_one_that_failed_is_left(tmp_path: Path) -> None:
    study = studied(tmp_path)
    search(study, 50.0, 10.0, 60.0, 40.0)
    first, second = (study.next_trial(lambda point: None, repeats=True) for _ in range(2))
    assert first is not None
    assert second is not None
    study.ended(first.number, Status.FAILED, "ran out of luck")
    again = studied(tmp_path)
    assert again.repeats_left
    assert again.next_trial(lambda point: None) is None
    record = again.next_trial(lambda point: None, repeats=True)
    assert record is not None
    assert record.number == second.number
    following = again.next_trial(lambda point: None, repeats=True)
    assert following is not None
    assert following.parameters["train.seed"] == 44


def test_nothing_is_repeated_unless_asked(tmp_path: Path) -> None:
    study = studied(tmp_path, dataclasses.replace(REPEATED, repeats=1))
    search(study, 50.0, 10.0, 60.0, 40.0)
    assert study.finished
    assert not study.repeats_left


def repeated(*scores: tuple[float, ...], worse: bool = False) -> Sweep:
    """Trials with their scores by seed."""
    trials = [trial(number, 1e-4 * (number + 1), 32, own[0]) for number, own in enumerate(scores)]
    for place in range(1, max(map(len, scores))):
        for number, own in enumerate(scores):
            if place < len(own):
                one = trial(len(trials), 1e-4, 32, own[place])
                values = trials[number].parameters | {"train.seed": 42 + place}
                trials.append(dataclasses.replace(one, parameters=values, repeats=number))
    return sweep(*trials, tune=TuneConfig(repeats=3))


def test_mean_over_seeds_decides_and_the_best_of_them_is_kept() -> None:
    # The second one was lucky once; the last one has no other seed.
    swept = repeated((50.0, 51.0, 52.0), (58.0, 40.0, 42.0), (49.0,))
    first, second = rank(swept)
    assert (first.record.number, first.mean, first.scores) == (0, 51.0, [50.0, 51.0, 52.0])
    # Student's quantile for two degrees of freedom is 4.3027; the scores' standard deviation is 1.
    assert first.half_width == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    assert second.mean == pytest.approx(46.667, abs=1e-3)
    assert not second.differs
    assert swept.best is not None
    assert (swept.best.number, swept.best.repeats) == (5, 0)


def test_what_is_worse_by_more_than_chance_is_told() -> None:
    swept = repeated((50.0, 50.2, 50.1), (40.0, 40.1, 40.3), (49.9, 50.3, 50.0))
    assert [(one.record.number, one.differs) for one in rank(swept)] == [(0, False), (2, False), (1, True)]
    told = text_table(swept).splitlines()
    assert "trial-000: f1 50.10 +- 0.25 over 3 seeds." in told
    assert "trial-002: f1 50.07 +- 0.52 over 3 seeds, no more than chance from the first." in told
    assert "trial-001: f1 40.13 +- 0.38 over 3 seeds, worse than the first." in told
    assert any("trial-000 with seed 43" in line for line in told)
    assert "worse than the first" in render(swept)


def test_seeds_that_score_all_alike_differ_by_any_difference() -> None:
    assert [one.differs for one in rank(repeated((50.0, 50.0), (49.0, 49.0)))] == [False, True]


def test_sweep_without_repeats_ranks_nothing() -> None:
    assert rank(night()) == []


def test_seed_that_is_searched_is_not_repeated_too() -> None:
    with pytest.raises(ConfigError, match=r"tune\.repeats=3: --space searches train\.seed already"):
        SweepConfig(space=("train.seed=choice(1, 2)",), tune=TuneConfig(repeats=3))
