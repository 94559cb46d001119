"""Of two jobs one begins a run, and of two worker groups the newer one writes into it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from checkpoints import OLD, publish, save

from qa_ray.errors import StorageError
from qa_ray.storage.checkpoint_store import CheckpointStore, NotOwnerError
from qa_ray.storage.ownership import Ownership, create, join, new_group, withdraw
from qa_ray.storage.run_folder import CONFIG, OWNER, RunFolder
from qa_ray.storage.upload import Uploader


def test_run_is_begun_with_its_files(anywhere: RunFolder) -> None:
    create(anywhere, "first", {CONFIG: b"first"})
    assert anywhere.read(CONFIG) == b"first"


def test_run_that_another_job_has_begun_is_left_to_it(anywhere: RunFolder) -> None:
    create(anywhere, "first", {CONFIG: b"first"})
    with pytest.raises(
        StorageError, match=r"run\.name=run: another job has begun a run of this name .* at this moment"
    ):
        create(anywhere, "second", {CONFIG: b"second"})
    assert anywhere.read(CONFIG) == b"first"
    withdraw(anywhere, "first", created=True)
    assert not anywhere.exists()


def test_folder_that_is_there_already_is_not_begun(folder: RunFolder) -> None:
    folder.write("precious.txt", b"keep me")
    with pytest.raises(StorageError, match="another job has begun a run of this name"):
        create(folder, "first", {CONFIG: b"first"})
    assert folder.read(CONFIG) is None
    assert [path.name for path in Path(folder.storage_path).iterdir()] == ["run"]


def test_of_many_jobs_that_begin_at_once_never_two_succeed(anywhere: RunFolder) -> None:
    jobs, local = [f"job-{number}" for number in range(8)], "://" not in anywhere.storage_path
    for turn in range(5):
        run, line = RunFolder(anywhere.storage_path, f"run-{turn}"), threading.Barrier(len(jobs))

        def begin(job: str, run: RunFolder = run, line: threading.Barrier = line) -> bool:
            line.wait()
            try:
                create(run, job, {CONFIG: job.encode()})
            except StorageError:
                return False
            return True

        with ThreadPoolExecutor(len(jobs)) as pool:
            begun = [job for job, won in zip(jobs, pool.map(begin, jobs), strict=True) if won]
        assert len(begun) == 1 if local else len(begun) <= 1
        assert run.read(CONFIG) == (begun[0].encode() if begun else None)
    if local:
        assert len(list(Path(anywhere.storage_path).iterdir())) == 5, "losers leave nothing"


def test_start_that_fails_leaves_nothing_of_a_new_run(anywhere: RunFolder) -> None:
    create(anywhere, "first", {CONFIG: b"first"})
    anywhere.write("fingerprint.jsonl", b"{}")
    withdraw(anywhere, "first", created=True)
    assert not anywhere.exists()


def test_start_that_fails_leaves_a_run_with_which_another_job_goes_on(anywhere: RunFolder) -> None:
    create(anywhere, "first", {CONFIG: b"first"})
    join(anywhere, "second")
    withdraw(anywhere, "first", created=True)
    assert anywhere.read(CONFIG) == b"first"


def test_job_that_may_not_go_on_leaves_the_run_to_the_one_that_began_it(anywhere: RunFolder) -> None:
    create(anywhere, "first", {CONFIG: b"first"})
    join(anywhere, "second")
    withdraw(anywhere, "second", created=False)
    assert anywhere.read(CONFIG) == b"first"
    withdraw(anywhere, "first", created=True)
    assert not anywhere.exists()


@pytest.fixture
def run(folder: RunFolder) -> RunFolder:
    folder.write(OWNER, b"job")
    return folder


def test_newest_worker_group_of_the_job_holds_the_run(run: RunFolder) -> None:
    older = Ownership.claim(run, "job")
    assert older.holds()
    younger = Ownership.claim(run, "job")
    assert (older.holds(), younger.holds()) == (False, True)


def test_job_that_has_lost_its_run_cannot_take_it_back(run: RunFolder) -> None:
    group = Ownership.claim(run, "job")
    run.write(OWNER, b"another")
    assert not group.holds()
    with pytest.raises(StorageError, match=r"run\.name=run: another job has gone on with this run"):
        Ownership.claim(run, "job")
    assert Ownership.claim(run, "another").holds()


def test_later_groups_sort_behind_earlier_ones_though_their_clock_is_slow(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [Ownership.claim(run, "job").group]
    monkeypatch.setattr(time, "time_ns", lambda: 10**9)
    groups += [Ownership.claim(run, "job").group for _ in range(3)]
    assert groups == sorted(set(groups))
    assert new_group() < groups[0]


def test_older_group_neither_publishes_nor_deletes_once_a_younger_one_has_claimed(
    run: RunFolder, tmp_path: Path
) -> None:
    for step in (1, 2):
        publish(run, f"step-{step}", OLD)
    older = Ownership.claim(run, "job")
    store = CheckpointStore(run, older.holds)
    Ownership.claim(run, "job")
    with pytest.raises(NotOwnerError, match="another job or worker group has gone on with this run"):
        store.publish("step-1", save(tmp_path / "staged", {"state": b"other"}))
    store.prune(())
    uploader = Uploader(store, 1)
    uploader.submit("step-3", save(tmp_path / "third", {"state": b"other"}), best=None, required=False)
    uploader.close()
    assert store.names() == ["step-1", "step-2"]
    assert store.fetch("step-1").joinpath("state.pt").read_bytes() == OLD["state.pt"]
