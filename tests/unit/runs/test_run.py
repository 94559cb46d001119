"""A run evaluates within its epochs and may end early: alike, however often it stops and goes on."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import set_seed
from checkpoints import place
from small_runs import changed, cpu_accelerator, made_passages, make_collator, tiny_config

from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import BestBy
from qa_ray.data.subset import random_share
from qa_ray.model.loading import load_model
from qa_ray.runs.run import Run
from qa_ray.runs.saved import find_saved
from qa_ray.runs.saver import Saver
from qa_ray.runs.stream import StreamSender
from qa_ray.schema import Passage
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.metrics import Line
from qa_ray.training.control import Control, Decision
from qa_ray.training.evaluator import Evaluator
from qa_ray.training.loop import TrainingLoop

# Eight steps in each of two epochs.
PASSAGES = made_passages(18)
SAVE = Decision(save=True)
STOP = Decision(save=True, urgent=True, stop=True)
WARNED = Decision(save=True, urgent=True)


class Sender(StreamSender):
    """Keeps what it would send."""

    def __init__(self) -> None:
        super().__init__(SimpleNamespace(put=SimpleNamespace(remote=id)))

    def flush(self) -> None:
        """Nothing is under way."""


class Scripted(Control):
    """Decides as it is told, step by step."""

    def __init__(self, decisions: Mapping[int, Decision]) -> None:
        self._decisions = decisions

    def __call__(self, step: int) -> Decision:
        return self._decisions.get(step, Decision())

    def saved(self) -> None:
        """No time is counted."""


@pytest.fixture
def config(bert: Path) -> Config:
    return tiny_config(bert, evaluate={"per_epoch": 2}, checkpoint={"keep": 100})


def start(config: Config, folder: RunFolder, decisions: Mapping[int, Decision] | None = None) -> Run:
    """A rank's run, begun, or gone on with from its newest checkpoint."""
    accelerator, sender = cpu_accelerator(), Sender()
    saved = find_saved(folder, accelerator, "group")
    set_seed(0)
    model = load_model(dataclasses.replace(config.model, name=saved.model) if saved else config.model)
    collator = make_collator(config, PASSAGES)
    loop = TrainingLoop(config, collator, model, accelerator, sender)
    saver = Saver(config, folder, accelerator, sender.history, saved=saved)
    evaluate, evaluate_all = Evaluator(make_collator(config, on_share(config)), config.evaluate), on_all(config)
    control = Scripted(decisions or {})
    run = Run(config, accelerator, sender, sender, model, loop, evaluate, evaluate_all, saver, control)
    if saved:
        run.go_on(saved)
    else:
        run.begin(evaluate=False)
    return run


def on_share(config: Config) -> list[Passage]:
    """The passages of the questions that a model is measured on while it trains."""
    ids = [passage.questions[0].id for passage in PASSAGES]
    return [PASSAGES[place] for place in random_share(ids, config.evaluate.share)]


def on_all(config: Config) -> Evaluator:
    return Evaluator(make_collator(config, PASSAGES), config.evaluate)


def finish(run: Run) -> dict[str, Any]:
    """Make the rest of a run's steps, or those up to a stop, and return all that must be the same in two runs."""
    while not run.over:
        run.epoch()
    outcome = run.end()

    def told(line: Line) -> dict[str, Any]:
        return {name: value for name, value in line.items() if name in ("phase", "step", "train_loss", "eval_f1")}

    return {
        "lines": [told(line) for line in outcome.history],
        "best": outcome.best_step,
        "ledger": outcome.ledger,
        "stopped": outcome.stopped,
        "weights": {name: weight.numpy().tobytes() for name, weight in run.model.state_dict().items()},
    }


def evaluated(found: dict[str, Any]) -> list[int]:
    return [line["step"] for line in found["lines"] if line["phase"] == "evaluate"]


def names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in Path(folder.storage_path, folder.name, "checkpoints").iterdir())


@pytest.fixture
def undisturbed(config: Config, tmp_path: Path) -> dict[str, Any]:
    return finish(start(config, RunFolder(str(tmp_path / "undisturbed"), "run")))


def test_epochs_are_evaluated_and_saved_in_their_middle_too(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    assert evaluated(undisturbed) == [4, 8, 12, 16]
    folder = RunFolder(str(tmp_path / "undisturbed"), "run")
    assert names(folder) == [f"step-{step:08d}" for step in (4, 8, 12, 16)]


@pytest.mark.parametrize("step", [1, 3, 4, 5, 7, 8, 12, 15])
def test_run_that_stops_anywhere_goes_on_as_if_it_had_not(
    config: Config, folder: RunFolder, undisturbed: dict[str, Any], step: int
) -> None:
    """Also just before an evaluation, which it leaves for later: whoever stops a job does not wait for long."""
    stopped = finish(start(config, folder, {step: STOP}))
    assert stopped["stopped"]
    assert evaluated(stopped) == [number for number in (4, 8, 12) if number < step]
    assert finish(start(config, folder)) == undisturbed


def test_evaluation_comes_once_and_with_one_checkpoint_unless_it_is_urgent(
    config: Config, folder: RunFolder, undisturbed: dict[str, Any]
) -> None:
    run = start(config, folder, dict.fromkeys(range(1, 17), SAVE) | {12: WARNED})
    saved = []
    save = run.saver.save
    run.saver.save = lambda loop, *others, **how: saved.append(loop.state.step) or save(loop, *others, **how)
    assert finish(run) == undisturbed
    assert saved == [step for step in range(1, 17) if step not in (4, 8, 16)]


def test_time_of_evaluations_is_no_time_of_steps(config: Config, folder: RunFolder) -> None:
    run = start(config, folder)
    meter, running = run.loop._meter, []
    measure = run.evaluate
    run.evaluate = lambda *how, **further: running.append(meter.since is not None) or measure(*how, **further)
    finish(run)
    assert running == [False] * 4


@pytest.mark.parametrize("stops", [{}, {4: STOP, 5: STOP, 11: STOP}, {8: STOP, 12: STOP}], ids=str)
def test_run_without_gain_ends_early_however_often_it_stops(
    config: Config, folder: RunFolder, undisturbed: dict[str, Any], stops: dict[int, Decision]
) -> None:
    # No evaluation is so much better than the first one.
    patient = changed(config, train={"patience": 2, "min_gain": 1000.0})
    for _ in range(len(stops)):
        assert finish(start(patient, folder, stops))["stopped"]
    found = finish(start(patient, folder))
    assert not found["stopped"]
    assert evaluated(found) == [4, 8, 12]
    assert found["lines"] == [line for line in undisturbed["lines"] if line["step"] <= 12]
    # Whoever starts it once more finds it so.
    again = start(patient, folder)
    assert again.over
    assert again.loop.state.step == 12
    assert finish(again)["best"] == found["best"]


@pytest.mark.parametrize("stop", [None, 8, 11])
def test_model_is_chosen_by_a_share_of_the_questions_and_then_measured_on_all(
    config: Config, folder: RunFolder, stop: int | None
) -> None:
    # A high rate at the end of which the model is not at its best.
    config = changed(config, evaluate={"share": 0.5, "best_by": BestBy.LOSS}, optim={"learning_rate": 0.1})
    if stop is not None:
        stopped = start(config, folder, {stop: STOP})
        assert finish(stopped)["stopped"]
        assert not [line for line in stopped.sender.history if "eval_f1" in line]
    run = start(config, folder)
    best = finish(run)["best"]
    history = [line for line in run.sender.history if line["phase"] == "evaluate"]
    assert [line["step"] for line in history] == [4, 8, 12, 16, best]
    assert best < 16
    losses = {line["step"]: line["eval_share_loss"] for line in history[:4]}
    assert min(losses, key=losses.__getitem__) == best
    assert [line["eval_share_total"] for line in history[:4]] == [9.0] * 4
    kept = load_model(dataclasses.replace(config.model, name=str(place(folder, f"step-{best:08d}") / "model")))
    alone = on_all(config)(kept, cpu_accelerator())
    assert alone is not None
    assert {name: history[-1][f"eval_{name}"] for name in alone.metrics} == alone.metrics
    assert alone.metrics["total"] == 18
    predictions = json.loads((Path(folder.storage_path) / folder.name / "evaluation" / "predictions.json").read_text())
    assert len(predictions) == 18
