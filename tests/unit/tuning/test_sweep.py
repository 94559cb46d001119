"""Room for trials at once, a scheduler that knows what was scored before it began, and how trials end."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler
from sweeps import F1, trial

from qa_ray.runs.resources import Resources
from qa_ray.tuning.options import TuneConfig
from qa_ray.tuning.sweep import ending, make_scheduler, replay, trials_at_once
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


@pytest.mark.parametrize(
    ("result", "status", "reason"),
    [
        ({"epoch": 1, "eval_f1": 50.0}, Status.STOPPED, "after epoch 1, not in the best 1/2 that came as far"),
        ({"epoch": 2, "end": "finished"}, Status.FINISHED, None),
        ({"end": "failed", "reason": "went astray"}, Status.FAILED, "went astray"),
        ({"end": "running"}, Status.RUNNING, None),
    ],
    ids=["by the scheduler", "by itself", "by a mistake", "interrupted: it goes on with the sweep"],
)
def test_last_report_says_what_became_of_a_trial(result: dict[str, object], status: Status, reason: str | None) -> None:
    assert ending(result, TuneConfig()) == (status, reason)
