"""How far trials are is shown: in a log by a line for every tenth of each."""

import pytest

from qa_ray.tuning.view import SweepView, TrialProgress


class Stream:
    """Brings nothing by itself."""

    take = None


def test_log_has_a_line_for_every_tenth_of_each_trial(capfd: pytest.CaptureFixture[str]) -> None:
    view = SweepView(Stream())
    for step in range(1, 41):
        view._show(TrialProgress("trial-000", step, 40, "epoch 0.5: f1 41.25" if step > 20 else ""))
        if step % 2 == 0:
            view._show(TrialProgress("trial-001", step // 2, 40))
    view._show(TrialProgress("trial-000", 0, 0, ended=True))
    view._show(TrialProgress("trial-002", 0, 0, ended=True))
    lines = capfd.readouterr().err.splitlines()
    shown = [line.partition(" [")[0] for line in lines]
    assert [line for line in shown if line.startswith("trial-000")] == [
        f"trial-000: {percent:3}% {step}/40 steps"
        for percent, step in [(2, 1), *((10 * tenth, 4 * tenth) for tenth in range(1, 11))]
    ]
    assert [line for line in shown if line.startswith("trial-001")][-1] == "trial-001:  50% 20/40 steps"
    assert lines[-2].endswith(", epoch 0.5: f1 41.25]") or lines[-1].endswith(", epoch 0.5: f1 41.25]")
    assert "trial-002" not in " ".join(lines)


def test_trial_that_goes_on_from_a_checkpoint_begins_there(capfd: pytest.CaptureFixture[str]) -> None:
    view = SweepView(Stream())
    view._show(TrialProgress("trial-000", 30, 40))
    view._show(TrialProgress("trial-000", 40, 40))
    assert [line.partition(" [")[0] for line in capfd.readouterr().err.splitlines()] == [
        "trial-000:  75% 30/40 steps",
        "trial-000: 100% 40/40 steps",
    ]
