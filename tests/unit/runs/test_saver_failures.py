"""What cannot be saved or found stops a run only where it must."""

import tempfile
from types import SimpleNamespace

import pytest
from checkpoints import flip, harm, place
from safetensors import SafetensorError
from savers import SavedRun, fail

from qa_ray.errors import StorageError
from qa_ray.runs.saved import Saved
from qa_ray.runs.saver import Saver
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import checkpoint_name
from qa_ray.storage.staging import staging_place
from qa_ray.training.snapshot import Snapshot


@pytest.fixture
def run(bert, folder):
    return SavedRun(bert, folder)


@pytest.fixture(params=["no folder", "full for the model", "full for the optimizer", "full for safetensors"])
def full_disk(request, monkeypatch, copies):
    """A temporary folder that cannot be written any more; returns what the system says."""
    if request.param == "no folder":
        (copies / "file").touch()
        monkeypatch.setattr(tempfile, "tempdir", str(copies / "file"))
        return "Not a directory"
    full, full_too = OSError(28, "No space left on device"), SafetensorError("No space left on device")
    if request.param == "full for the model":
        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fail(full))
    else:
        monkeypatch.setattr(Snapshot, "write", fail(full_too if request.param == "full for safetensors" else full))
    return "No space left on device"


def test_checkpoint_that_cannot_be_written_in_mid_epoch_is_a_warning(copies, run, full_disk, caplog):
    saver = run.saver()
    run.step()
    saver.save(run.loop, run.model)
    saver.abandon()
    assert "step 1 is not saved; training goes on: " in caplog.text
    assert full_disk in caplog.text
    assert not list(copies.glob("qa_ray-*/*/*/*")), "half a checkpoint must not fill the disk"
    saver.close()
    assert run.found() is None


def test_checkpoint_that_the_store_refused_or_does_not_tell_of_is_not_stored(run, monkeypatch):
    saver = run.saver()
    run.step()
    with monkeypatch.context() as refused:
        refused.setattr(CheckpointStore, "publish", fail(StorageError("the store is down")))
        run.save(saver)
    assert saver.stored(1) is False
    run.save(saver)
    assert saver.stored(1) is True
    monkeypatch.setattr(CheckpointStore, "names", fail(StorageError("the store is down")))
    assert saver.stored(1) is False


@pytest.mark.parametrize("then", ["close", "save", "save_evaluated"])
def test_epoch_that_cannot_be_written_is_an_error_in_what_comes_next(copies, run, full_disk, then):
    saver = run.saver()
    run.loop.train_epoch()
    run.save_evaluated(saver)
    saver.abandon()
    assert saver.stored(run.loop.state.step) is False
    actions = {
        "close": saver.close,
        "save": lambda: saver.save(run.loop, run.model),
        "save_evaluated": lambda: run.save_evaluated(saver),
    }
    with pytest.raises(StorageError, match=full_disk) as raised:
        actions[then]()
    assert "free space" in str(raised.value)
    assert str(staging_place(run.folder).parent) in str(raised.value)
    assert not list(copies.glob("qa_ray-*/*/*/*"))


def test_epoch_that_is_never_stored_is_an_error_and_its_files_stay(run, monkeypatch):
    monkeypatch.setattr(CheckpointStore, "publish", fail(StorageError("the store is down")))
    saver = run.saver()
    run.loop.train_epoch()
    run.save_evaluated(saver)
    with pytest.raises(StorageError, match=f"{checkpoint_name(run.loop.state.step)} cannot be stored"):
        saver.close()
    (staged,) = staging_place(run.folder).glob("*/*")
    assert Saved.read(staged.name, staged, fetched=False).snapshot.step == run.loop.state.step


@pytest.mark.parametrize("file", ["optimizer.safetensors", "model/model.safetensors", "state.json", "saved.json"])
def test_run_goes_on_from_the_checkpoint_before_a_damaged_one(run, caplog, file):
    saver = run.saver()
    for _ in range(2):
        run.step()
        run.save(saver)
    saver.close()
    assert run.found().snapshot.step == 2
    harm(place(run.folder, "step-00000002") / file, flip)
    found = run.found()
    assert (found.folder.name, found.snapshot.step) == ("step-00000001", 1)
    assert "step-00000002" in caplog.text


def test_only_the_main_process_writes(run):
    accelerator = SimpleNamespace(is_main_process=False)
    second = fail(AssertionError("a second process would write"))
    saver = Saver(run.config, run.folder, accelerator, [], uploader=second)
    run.step()
    saver.save(run.loop, run.model)
    saver.save_evaluated(run.loop, run.model, None)
    saver.close()
    assert not run.folder.exists()
