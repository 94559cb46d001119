"""Checkpoints reach a store that fails for a while, and none that is needed is lost."""

import logging
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from checkpoints import files_of, harm, place, save

from qa_ray.errors import StorageError
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.upload import Uploader

PAUSES = (0.0, 0.01, 0.02)


class Flaky(CheckpointStore):
    """A store that fails at the next `failures` attempts, and waits before each until `open` is set."""

    def __init__(self, folder, owned):
        super().__init__(folder, owned)
        self.failures = 0
        self.attempts = []
        self.times = []
        self.open = threading.Event()
        self.open.set()

    def publish(self, name, source):
        self.attempts.append(name)
        self.times.append(time.monotonic())
        self.open.wait()
        if self.failures > 0:
            self.failures -= 1
            raise StorageError("the store is down")
        super().publish(name, source)


@pytest.fixture
def owned():
    """Whether the run still belongs to this job, in a list of one, to be set."""
    return [True]


@pytest.fixture
def store(folder, owned):
    return Flaky(folder, lambda: owned[0])


@pytest.fixture
def uploader(store):
    return Uploader(store, 2, pauses=PAUSES)


@pytest.fixture
def submit(uploader, tmp_path):
    """Stage a checkpoint of one file and submit it; returns when it has been tried, unless told otherwise."""

    def submit_step(step, *, best=None, required=False, wait=True) -> Path:
        name = f"step-{step}"
        staged = save(tmp_path / "staged" / name, {"state": name.encode()})
        uploader.submit(name, staged, best=best, required=required)
        while wait and uploader.busy:
            time.sleep(0.001)
        return staged

    return submit_step


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_store_that_fails_for_a_while_is_tried_again(store, submit, uploader, caplog, failures):
    store.failures = failures
    staged = submit(1)
    assert files_of(store.fetch("step-1")) == {"state": b"step-1"}
    assert not staged.exists()
    assert store.attempts == ["step-1"] * (failures + 1)
    for (before, after), pause in zip(pairwise(store.times), PAUSES[1:], strict=False):
        assert after - before >= pause
    assert not caplog.records
    uploader.close()


def test_training_goes_on_while_a_checkpoint_is_stored(store, submit, uploader):
    assert not uploader.busy
    store.open.clear()
    submit(1, wait=False)
    assert uploader.busy
    assert store.names() == []
    store.open.set()
    uploader.close()
    assert not uploader.busy
    assert store.names() == ["step-1"]


def test_close_waits_for_all_that_was_submitted(store, submit, uploader):
    store.open.clear()
    for step in (1, 2):
        submit(step, wait=False)
    threading.Timer(0.05, store.open.set).start()
    uploader.close()
    assert store.names() == ["step-1", "step-2"]


def test_checkpoint_that_is_not_required_is_given_up_with_a_warning(store, submit, uploader, caplog):
    store.failures = 3
    staged = submit(1)
    assert not staged.exists()
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "checkpoint step-1 is not stored; training goes on: the store is down" in warning.getMessage()
    uploader.close()
    assert store.attempts == ["step-1"] * 3
    assert store.names() == []


def test_required_checkpoint_is_tried_again_with_the_next_one(store, submit, uploader, caplog):
    store.failures = 3
    staged = submit(1, required=True)
    assert "checkpoint step-1 is not stored; training goes on" in caplog.text
    assert files_of_staged(staged) == {"state": b"step-1"}
    submit(2)
    assert store.attempts == ["step-1"] * 4 + ["step-2"]
    assert store.names() == ["step-1", "step-2"]
    assert not staged.exists()
    uploader.close()


def files_of_staged(staged: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in staged.iterdir()}


def test_store_that_stays_away_is_waited_for_once_however_many_checkpoints_wait(store, submit):
    store.failures = 10**6
    for step in (1, 2, 3):
        submit(step, required=True)
    assert store.attempts == ["step-1"] * 3 + ["step-1"] * 3 + ["step-2"] + ["step-1"] * 3 + ["step-2", "step-3"]


def test_required_checkpoint_is_tried_again_at_the_end(store, submit, uploader):
    store.failures = 3
    submit(1, required=True)
    uploader.close()
    assert store.names() == ["step-1"]


def test_required_checkpoints_that_were_never_stored_are_an_error_and_their_files_stay(store, submit, uploader):
    store.failures = 10**6
    staged = [submit(1, required=True), submit(2, required=False), submit(3, required=True)]
    with pytest.raises(StorageError) as raised:
        uploader.close()
    message = str(raised.value)
    assert "checkpoints step-1, step-3 cannot be stored" in message
    assert str(staged[0]) in message
    assert str(staged[2]) in message
    assert "step-2" not in message
    assert [place.exists() for place in staged] == [True, False, True]
    assert files_of_staged(staged[2]) == {"state": b"step-3"}


def test_newest_and_best_are_kept(store, submit):
    for step in (1, 2, 3, 4, 5):
        submit(step, best="step-2" if step > 1 else None)
    assert store.names() == ["step-2", "step-4", "step-5"]
    submit(6, best="step-6")
    assert store.names() == ["step-5", "step-6"]


def test_store_that_cannot_be_listed_after_a_checkpoint_stops_nothing(store, submit, uploader, monkeypatch, caplog):
    def fail():
        raise StorageError("the store is down")

    with monkeypatch.context() as patched:
        patched.setattr(store, "names", fail)
        submit(1, required=True)
    assert "old checkpoints are not deleted: the store is down" in caplog.text
    for step in (2, 3):
        submit(step)
    uploader.close()
    assert store.names() == ["step-2", "step-3"]


def test_run_whose_owner_cannot_be_read_after_a_checkpoint_goes_on(folder, tmp_path, caplog):
    # Before step-1 is copied and before it counts, before an older one is deleted; then the same of step-2.
    CheckpointStore(folder).publish("step-0", save(tmp_path / "staged" / "step-0", {"state": b"old"}))
    answers = iter([True, True, StorageError("the store is down"), True, True, True, True])

    def owned():
        answer = next(answers)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    store = CheckpointStore(folder, owned)
    uploader = Uploader(store, 1)
    for name in ("step-1", "step-2"):
        uploader.submit(name, save(tmp_path / "staged" / name, {"state": b"new"}), best=None, required=True)
    uploader.close()
    assert "checkpoint step-0 is not deleted: the store is down" in caplog.text
    assert store.names() == ["step-2"]


def test_nothing_is_deleted_while_a_required_checkpoint_is_missing(store, submit, uploader):
    for step in (1, 2):
        submit(step)
    store.failures = 3
    submit(3, required=True)
    assert store.names() == ["step-1", "step-2"]
    store.failures = 3
    submit(4)  # is stored, but the one before it is not
    assert store.names() == ["step-1", "step-2", "step-4"]
    submit(5)
    assert store.names() == ["step-4", "step-5"]
    uploader.close()


def test_nothing_is_deleted_when_a_checkpoint_was_given_up(store, submit, uploader):
    for step in (1, 2):
        submit(step)
    store.failures = 3
    submit(3)
    assert store.names() == ["step-1", "step-2"]
    uploader.close()


def test_later_checkpoints_than_the_one_that_the_run_went_on_from_do_not_count(folder, store, submit, uploader):
    """They were damaged: were they among the newest that are kept, the whole ones would have to go."""
    for step in (1, 8, 9):
        CheckpointStore(folder).publish(f"step-{step}", save(Path(folder.storage_path) / "source", {"state": b"old"}))
    for step in (8, 9):
        harm(place(folder, f"step-{step}") / "state", None)
    submit(2)
    submit(3)
    assert store.names() == ["step-2", "step-3"]
    uploader.close()


def test_run_that_belongs_to_another_job_is_left_alone(store, submit, uploader, owned, caplog):
    for step in (1, 2):
        submit(step)
    owned[0] = False
    staged = submit(3)
    assert store.attempts == ["step-1", "step-2", "step-3"]
    assert "another job or worker group has gone on with this run" in caplog.text
    assert not staged.exists()
    submit(4, required=True)
    with pytest.raises(StorageError, match=r"step-4 cannot be stored: another job or worker group has gone on"):
        uploader.close()
    assert store.names() == ["step-1", "step-2"]


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("_copy", ["step-0", "step-1", "step-2"]),
        ("names", ["step-0", "step-1", "step-2", "step-3"]),
        ("_remove", ["step-1", "step-2", "step-3"]),
    ],
    ids=["before a checkpoint counts", "before others are deleted", "between two that are deleted"],
)
def test_run_that_is_taken_over_meanwhile_is_left_alone(
    folder, store, submit, uploader, owned, tmp_path, monkeypatch, method, names
):
    for step in (0, 1, 2):
        CheckpointStore(folder).publish(f"step-{step}", save(tmp_path / f"{step}", {"state": b"old"}))
    do = getattr(store, method)

    def do_and_lose(*arguments):
        result = do(*arguments)
        # Before it is written, a checkpoint of the same name is removed.
        owned[0] &= arguments == ("step-3",)
        return result

    with monkeypatch.context() as patched:
        patched.setattr(store, method, do_and_lose)
        submit(3)
    uploader.close()
    assert store.names() == names
