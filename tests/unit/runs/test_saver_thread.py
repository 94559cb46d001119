"""Steps stand still for a copy in memory alone: a thread writes the checkpoint, with what was there before them."""

import dataclasses
import json
import threading

import pytest
import torch
from savers import SavedRun

from qa_ray.model.loading import load_model
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.tracking.metrics import CHECKPOINT_STALL_SECONDS
from qa_ray.training.snapshot import Snapshot


@pytest.fixture
def run(bert, folder):
    return SavedRun(bert, folder)


@pytest.fixture
def writing(monkeypatch):
    """Nothing is written before this is set; what is written is written by a thread."""
    opened, write = threading.Event(), Snapshot.write

    def wait_and_write(self, place):
        assert threading.current_thread() is not threading.main_thread(), "the steps would stand still for it"
        opened.wait()
        write(self, place)

    monkeypatch.setattr(Snapshot, "write", wait_and_write)
    yield opened
    opened.set()


@pytest.mark.parametrize("epoch", [False, True], ids=["mid-epoch", "an epoch's end"])
def test_steps_go_on_while_a_checkpoint_is_written_and_it_holds_what_was_there_before_them(run, writing, epoch):
    history = [{"step": 1}]
    saver = run.saver(history)
    if epoch:
        run.loop.train_epoch()
        run.save_evaluated(saver)
    else:
        run.step()
        saver.save(run.loop, run.model)
    snapshot = run.loop.snapshot()
    weights, optimizer = (
        {name: tensor.clone() for name, tensor in tensors.items()}
        for tensors in (run.model.state_dict(), snapshot.optimizer)
    )
    assert saver.stored(snapshot.step) is None
    run.step()
    history.append({"step": 2})
    assert not torch.equal(run.model.qa_outputs.weight, weights["qa_outputs.weight"])
    writing.set()
    saver.close()
    found = run.found()
    assert found.snapshot.facts == json.loads(json.dumps(snapshot.facts))
    torch.testing.assert_close(found.snapshot.optimizer, optimizer, rtol=0, atol=0)
    loaded = load_model(dataclasses.replace(run.config.model, name=found.model)).state_dict()
    torch.testing.assert_close(loaded, weights, rtol=0, atol=0)
    assert found.history == [{"step": 1}]


def test_checkpoint_is_skipped_while_the_last_one_is_being_written(run, writing, caplog):
    saver = run.saver()
    for _ in range(2):
        run.step()
        saver.save(run.loop, run.model)
    assert "step 2 is not saved: the checkpoint before it is still being stored" in caplog.text
    writing.set()
    saver.close()
    assert CheckpointStore(run.folder).names() == ["step-00000001"]


def test_time_that_steps_stood_still_is_in_the_next_record(run):
    saver = run.saver()
    run.step()
    run.save(saver)
    run.step()
    run.step()
    saver.close()
    run.loop.snapshot()
    stalls = [record.metrics.get(CHECKPOINT_STALL_SECONDS) for record in run.records if record.metrics]
    assert [stall is not None for stall in stalls] == [False, True, False]
    assert stalls[1] > 0
