"""Room for trials at once, a scheduler that knows what was scored before it began, and how trials end."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler
from sweeps import F1, trial

from qa_ray.config.fine_tuning import EvalConfig
from qa_ray.runs.resources import Resources
from qa_ray.tuning.options import SchedulerKind, TuneConfig
from qa_ray.tuning.sweep import _Replayed, ending, make_scheduler, replay, trials_at_once
from qa_ray.tuning.trial import comparable_epoch
from qa_ray.tuning.trials import Status

BIG, GPUS = {"CPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("workers", "cpus", "use_gpu", "nodes", "limit", "expected"),
    [
        (2, 1, False, [{"CPU": 2.0}], None, 1),
        (1, 1, False, [{"CPU": 2.0}], None, 2),
        (2, 1, False, [{"CPU": 3.0}], None, 1),
        (2, 3, False, [BIG, BIG], None, 2),
        (1, 5, False, [BIG, BIG, {"CPU": 4.0}], None, 2),
        (1, 1, True, [GPUS, BIG], None, 4),
        (4, 8, True, [GPUS], None, 1),
        (2, 1, True, [GPUS, GPUS], 3, 3),
        (2, 1, False, [], None, 1),
    ],
    ids=[
        "two cores",
        "two single workers",
        "a core too few for two",
        "workers do not share nodes' rests",
        "a node too small",
        "one per GPU",
        "GPUs but too few cores",
        "a limit",
        "a cluster that is still empty",
    ],
)
def test_trials_at_once_all_have_their_workers(
    workers: int, cpus: int, use_gpu: bool, nodes: list[dict[str, float]], limit: int | None, expected: int
) -> None:
    assert (
        trials_at_once(TuneConfig(max_concurrent=limit), Resources(workers, workers, cpus, use_gpu), nodes) == expected
    )


def test_elastic_trials_are_counted_with_the_most_workers_that_they_take() -> None:
    assert trials_at_once(TuneConfig(), Resources(1, 4, 1, False), [BIG]) == 2


@pytest.mark.parametrize(("score", "decision"), [(20.0, TrialScheduler.STOP), (60.0, TrialScheduler.CONTINUE)])
def test_scheduler_of_a_resumed_sweep_knows_what_was_scored_before(score: float, decision: str) -> None:
    scheduler = make_scheduler(TuneConfig(), F1, epochs=2)
    replay(scheduler, [trial(0, 1e-4, 32, 50.0, 60.0), trial(1, 2e-4, 32, 40.0, status=Status.STOPPED)], F1)
    late = SimpleNamespace(trial_id="late")
    scheduler.on_trial_add(None, late)
    assert scheduler.on_trial_result(None, late, {"epoch": 1, "eval_f1": score}) == decision


def test_trial_below_the_median_of_the_others_averages_is_stopped() -> None:
    options = TuneConfig(scheduler=SchedulerKind.MEDIAN)
    scheduler = make_scheduler(options, F1, epochs=3)
    # On average 45, 35 and 55 after two epochs; one that failed at once tells nothing.
    replay(scheduler, [trial(number, 1e-4, 32, *f1) for number, f1 in enumerate([(40, 50), (30, 40), (50, 60)])], F1)
    names = ["failed", "late", "lower"]
    failed, late, lower = trials = [_Replayed(name) for name in names]
    for one in trials:
        scheduler.on_trial_add(None, one)
    scheduler.on_trial_complete(None, failed, {"end": "failed", "done": True})
    stop, go_on = TrialScheduler.STOP, TrialScheduler.CONTINUE
    for one, epoch, score, decision in [(late, 1, 41.0, go_on), (late, 2, 44.0, stop), (lower, 1, 39.0, stop)]:
        assert scheduler.on_trial_result(None, one, {"epoch": epoch, "eval_f1": score}) == decision
    said = "after epoch 2, below the median of what others scored on average so far"
    assert ending({"epoch": 2, "eval_f1": 44.0}, options) == (Status.STOPPED, said)


def test_trials_are_stopped_within_an_epoch() -> None:
    scheduler = make_scheduler(TuneConfig(grace=0.25), F1, epochs=1)
    trials = [SimpleNamespace(trial_id=f"trial-{number}") for number in range(3)]
    for one in trials:
        scheduler.on_trial_add(None, one)
    decisions = [
        scheduler.on_trial_result(None, trials[number], {"epoch": epoch, "eval_f1": score})
        for number, epoch, score in [(0, 0.25, 50.0), (1, 0.25, 60.0), (2, 0.25, 40.0), (1, 0.5, 70.0), (0, 0.5, 50.0)]
    ]
    stop, go_on = TrialScheduler.STOP, TrialScheduler.CONTINUE
    assert decisions == [go_on, go_on, stop, go_on, stop]


@pytest.mark.parametrize(
    ("evaluate", "trained", "expected"),
    [
        (EvalConfig(), [1.0, 2.0, 3.0], [1, 2, 3]),
        # Seven steps of four of 27 windows in an epoch: the fourth one ends its first half.
        (EvalConfig(per_epoch=2), [16 / 27, 1.0, 43 / 27, 2.0], [0.5, 1, 1.5, 2]),
        (EvalConfig(per_epoch=3), [12 / 27, 20 / 27, 1.0], [1 / 3, 2 / 3, 1]),
        (EvalConfig(every_steps=5), [20 / 27, 1.0, 40 / 27], [0.7407, 1, 1.4815]),
        # Ended by train.max_steps.
        (EvalConfig(), [0.3], [1]),
        (EvalConfig(), [1.0, 1.6], [1, 2]),
        # Runs of earlier versions.
        (EvalConfig(), [None, None], [1, 2]),
    ],
)
def test_trials_are_compared_after_the_same_part_of_an_epoch(
    evaluate: EvalConfig, trained: list[float | None], expected: list[float]
) -> None:
    found: list[float] = []
    for epochs in trained:
        found.append(comparable_epoch(epochs, found[-1] if found else 0.0, evaluate))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("result", "status", "reason"),
    [
        ({"epoch": 1, "eval_f1": 50.0}, Status.STOPPED, "after epoch 1, not in the best 1/2 that came as far"),
        ({"epoch": 0.5, "eval_f1": 50.0}, Status.STOPPED, "after epoch 0.5, not in the best 1/2 that came as far"),
        ({"epoch": 2, "end": "finished"}, Status.FINISHED, None),
        ({"end": "failed", "reason": "went astray"}, Status.FAILED, "went astray"),
        ({"end": "running"}, Status.RUNNING, None),
    ],
    ids=["by the scheduler", "within an epoch", "by itself", "by a mistake", "interrupted: it goes on with the sweep"],
)
def test_last_report_says_what_became_of_a_trial(result: dict[str, object], status: Status, reason: str | None) -> None:
    assert ending(result, TuneConfig()) == (status, reason)
