"""What a run saves is what it goes on from."""

import dataclasses
import json
import math
import pickle
import threading
from pathlib import Path

import pytest
import torch
from checkpoints import place
from savers import SavedRun, fail
from strict import read

from qa_ray.config.policies import BestBy
from qa_ray.model.loading import load_model
from qa_ray.runs.saved import Best, Saved
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import checkpoint_name
from qa_ray.storage.staging import private_folder, staging_place


@pytest.fixture
def run(bert, folder):
    return SavedRun(bert, folder)


@pytest.fixture
def gate(monkeypatch):
    """Nothing is stored before this is set."""
    opened, publish = threading.Event(), CheckpointStore.publish

    def wait_and_publish(self, name, source):
        opened.wait()
        publish(self, name, source)

    monkeypatch.setattr(CheckpointStore, "publish", wait_and_publish)
    yield opened
    opened.set()


def test_run_that_was_never_saved_has_nothing(run):
    assert run.found() is None


def test_names_sort_by_step():
    assert [checkpoint_name(step) for step in (0, 9, 10, 12_345_678)] == sorted(
        map(checkpoint_name, (0, 9, 10, 12_345_678))
    )


def test_what_is_saved_in_mid_epoch_is_found(run):
    history = [{"time": 1.5, "phase": "train", "step": 1, "train_loss": 2.0}]
    saver = run.saver(history)
    run.step()
    run.save(saver)
    saver.close()
    found = run.found()
    assert found.folder == place(run.folder, "step-00000001")
    assert found.history == history
    assert found.best is None
    assert found.snapshot.facts == json.loads(json.dumps(run.loop.snapshot().facts))
    loaded = load_model(dataclasses.replace(run.config.model, name=found.model)).state_dict()
    torch.testing.assert_close(loaded, run.model.state_dict(), rtol=0, atol=0)


def test_checkpoint_holds_what_was_recorded_until_then(run):
    history = []
    saver = run.saver(history)
    for number in (1, 2):
        run.step()
        history.append({"step": number})
        run.save(saver)
    saver.close()
    assert run.found().history == [{"step": 1}, {"step": 2}]
    assert Saved.read("step-00000001", place(run.folder, "step-00000001"), fetched=False).history == [{"step": 1}]


def test_epoch_is_saved_with_its_evaluation(run):
    saver = run.saver()
    run.loop.train_epoch()
    run.save_evaluated(saver)
    saver.close()
    found = run.found()
    assert found.best == Best(run.loop.state.step, 50.0)
    assert json.loads((found.folder / "evaluation" / "predictions.json").read_text()) == run.evaluation.predictions
    assert list(found.folder.parent.iterdir()) == [found.folder]


def test_no_answer_threshold_stands_beside_the_model(run):
    saver = run.saver()
    run.save_evaluated(saver, threshold=-1.5)
    saver.close()
    settings = json.loads((Path(run.found().model) / "qa_ray.json").read_text())
    assert settings["no_answer_threshold"] == -1.5


def test_files_are_made_in_the_temporary_folder_and_leave_nothing_there(copies, run, gate):
    saver = run.saver()
    run.step()
    saver.save(run.loop, run.model)
    saver.abandon()
    assert len(list(copies.glob("qa_ray-*/*/*/step-00000001"))) == 1
    gate.set()
    saver.close()
    assert list(copies.iterdir()) == [private_folder()]
    assert not list(private_folder().iterdir())


def test_what_an_earlier_groups_worker_left_half_written_meanwhile_goes_at_the_end(run):
    saver = run.saver()
    run.step()
    run.save(saver)
    (staging_place(run.folder) / "0" / "step-00000001.part").mkdir(parents=True)
    saver.close()
    assert list(private_folder().iterdir()) == []


def test_urgent_checkpoint_waits_for_the_one_before_it(run, gate):
    saver = run.saver()
    for urgent in (False, True):
        run.step()
        saver.save(run.loop, run.model, urgent=urgent)
    gate.set()
    saver.close()
    assert CheckpointStore(run.folder).names() == ["step-00000001", "step-00000002"]


def test_checkpoint_under_way_is_stored_once_all_of_it_is_there(run, gate):
    saver = run.saver()
    run.step()
    saver.save(run.loop, run.model, urgent=True)
    assert saver.stored(1) is None
    gate.set()
    saver.close()
    assert saver.stored(1) is True
    assert saver.stored(2) is False


@pytest.mark.parametrize(
    ("by", "scores", "best"),
    [
        (BestBy.F1, [(50, 40, 2.0), (60, 10, 3.0), (55, 90, 1.0)], 2),
        (BestBy.EXACT_MATCH, [(50, 40, 2.0), (60, 10, 3.0), (55, 90, 1.0)], 3),
        (BestBy.LOSS, [(50, 40, 2.0), (60, 10, 1.5), (55, 90, 3.0)], 2),
        (BestBy.F1, [(50, 40, 2.0), (50, 41, 1.0), (50, 42, 0.5)], 1),
        (BestBy.LOSS, [(50, 40, math.nan), (60, 10, 1.5), (55, 90, math.inf)], 2),
    ],
    ids=["f1", "exact_match", "loss, where lower is better", "the first of equals", "what is no number is worst"],
)
def test_best_evaluation_is_known(run, by, scores, best):
    saver = run.saver(best_by=by)
    steps = []
    for f1, exact_match, loss in scores:
        run.loop.train_epoch()
        steps.append(run.loop.state.step)
        run.save_evaluated(saver, f1=f1, exact_match=exact_match, loss=loss)
    saver.close()
    assert saver.best.step == run.found().best.step == steps[best - 1]
    kept = {checkpoint_name(steps[best - 1]), *map(checkpoint_name, steps[-2:])}
    assert CheckpointStore(run.folder).names() == sorted(kept), "the best one and the newest two are kept"


def test_run_that_goes_on_remembers_its_best_evaluation(run):
    saver = run.saver()
    run.loop.train_epoch()
    run.save_evaluated(saver, f1=60.0)
    saver.close()
    first = run.found()
    saver = run.saver(saved=first)
    for f1 in (59.0, 60.0):
        run.loop.train_epoch()
        run.save_evaluated(saver, f1=f1)
        assert saver.best == first.best
    run.loop.train_epoch()
    run.save_evaluated(saver, f1=61.0)
    assert saver.best == Best(run.loop.state.step, 61.0)
    saver.close()


def test_checkpoint_is_skipped_while_the_last_one_is_on_its_way(run, gate, caplog):
    saver = run.saver()
    for _ in range(2):
        run.step()
        saver.save(run.loop, run.model)
    assert "step 2 is not saved: the checkpoint before it is still being stored" in caplog.text
    gate.set()
    saver.close()
    assert CheckpointStore(run.folder).names() == ["step-00000001"]


def test_epoch_is_saved_though_the_checkpoint_of_its_last_step_is_on_its_way(run, gate, caplog):
    saver = run.saver()
    last = run.steps_per_epoch
    assert not run.loop.train_epoch(lambda: run.loop.state.step == last)
    saver.save(run.loop, run.model)
    assert run.loop.train_epoch()
    run.save_evaluated(saver)
    gate.set()
    saver.close()
    assert not [record for record in caplog.records if record.name.startswith("qa_ray")]
    found = run.found()
    assert found.best == Best(last, 50.0)
    assert found.snapshot.facts["state"] == dataclasses.asdict(run.loop.state)


def test_checkpoint_holds_neither_secrets_nor_pickles(run, monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "open-sesame")
    saver = run.saver([{"step": 1}])
    run.loop.train_epoch()
    run.save_evaluated(saver)
    saver.close()
    files = [path for path in run.found().folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jsonl", ".txt"}
    for path in files:
        content = path.read_bytes()
        assert b"open-sesame" not in content
        if path.suffix == ".json":
            json.loads(content)
    unpickled = fail(AssertionError("something was unpickled"))
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, unpickled)
    monkeypatch.setattr(torch, "load", unpickled)
    load_model(dataclasses.replace(run.config.model, name=run.found().model))


def test_checkpoint_of_what_is_not_finite_is_strict_json_and_the_run_goes_on_from_it(run):
    # fp16's gradient norm where a step is skipped, and the loss of an evaluation that overflowed.
    line = {"time": 1.5, "phase": "train", "step": 1, "train_loss": 2.0}
    saver = run.saver([line | {"grad_norm": math.inf}], best_by=BestBy.LOSS)
    run.loop.train_epoch()
    run.save_evaluated(saver, loss=math.nan)
    saver.close()
    found = run.found()
    for path in [*found.folder.rglob("*.json"), *found.folder.rglob("*.jsonl")]:
        read(path)
    assert found.history == [line | {"grad_norm": None}]
    assert found.best == Best(run.loop.state.step, -math.inf)
    saver = run.saver(saved=found, best_by=BestBy.LOSS)
    run.loop.train_epoch()
    run.save_evaluated(saver, loss=3.0)
    assert saver.best == Best(run.loop.state.step, -3.0)
    saver.close()
