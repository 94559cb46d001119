"""Of two jobs one begins a run."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qa_ray.errors import StorageError
from qa_ray.storage.ownership import create, join, withdraw
from qa_ray.storage.run_folder import CONFIG, RunFolder


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
