"""Storage that all nodes see: tried by files that are written, read by the others, and deleted."""

from pathlib import Path

import pytest

from qa_ray.doctor import disk
from qa_ray.doctor.disk import Probe, enough_space, same_storage
from qa_ray.doctor.machine import Room
from qa_ray.doctor.verdict import Status
from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import RunFolder

GB = 10**9


def probe_in(place: Path | str) -> Probe:
    return Probe.below(RunFolder(str(place), "run"))


def test_places_read_what_others_wrote_and_nothing_stays(tmp_path: Path) -> None:
    storage = tmp_path / "new" / "runs"
    probe = probe_in(storage)
    absent = disk.absent_folders(probe)
    assert absent == (str(storage), str(storage.parent))
    names = ["10.0.0.1/ab", "the driver"]
    for name in names:
        disk.write(probe, name)
    assert [disk.read(probe, names)[1] for _ in names] == [[], []]
    for _ in names:
        disk.delete(probe, absent)
    assert not list(tmp_path.iterdir())


def test_folder_that_was_there_stays_and_so_does_a_run_that_begins_meanwhile(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    probe = probe_in(storage)
    absent = disk.absent_folders(probe)
    disk.write(probe, "a")
    (storage / "another run").mkdir()
    disk.delete(probe, absent)
    assert [path.name for path in storage.iterdir()] == ["another run"]


def test_store_is_tried_alike(s3_folder: str) -> None:
    probe = probe_in(s3_folder)
    assert disk.absent_folders(probe) == ()
    disk.write(probe, "a")
    assert disk.read(probe, ["a", "b"])[1] == ["b"]
    disk.delete(probe, ())
    assert not probe.folder.exists()


def test_file_in_the_place_of_the_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match=r"run\.storage_path=.*runs cannot be written"):
        disk.write(probe_in(tmp_path / "runs"), "a")


def test_storage_that_another_place_does_not_see_fails() -> None:
    times = {"a": 0.1, "b": 0.2}
    verdict = same_storage("/runs", times, {"a": (0.1, ["b"]), "b": (0.3, ["a"])}, times)
    assert verdict.status is Status.FAILED
    assert (
        verdict.seen == "/runs is not the same everywhere: a: does not see what b wrote; b: does not see what a wrote"
    )
    assert "--run.storage-path" in verdict.cure


def test_slowest_times_are_told() -> None:
    verdict = same_storage("/runs", {"a": 0.1, "b": 0.2}, {"a": (0.4, []), "b": (0.3, [])}, {"a": 0.0, "b": 0.5})
    assert verdict.status is Status.PASSED
    assert "write 0.20 s, read 0.40 s, delete 0.50 s" in verdict.seen


@pytest.mark.parametrize(
    ("free", "temporary", "status", "words"),
    [
        (5 * GB, 5 * GB, Status.PASSED, "a checkpoint takes 1.2 GB, the run 5.2 GB"),
        (None, 5 * GB, Status.PASSED, "not known"),
        (4 * GB, 5 * GB, Status.FAILED, "only 4.0 GB are free in run.storage_path"),
        (5 * GB, 2 * GB, Status.FAILED, "a: 2.0 GB are free in /scratch"),
    ],
    ids=["enough", "a store", "storage full", "temporary folder full"],
)
def test_checkpoints_fit(free: int | None, temporary: int, status: Status, words: str) -> None:
    found = {"a": Room(0, temporary, "/scratch", 0, 0)}
    num_weights = 100_000_000
    verdict = enough_space(free and free + 200_000_000 * (free > 4 * GB), found, num_weights, keep=2)
    assert verdict.status is status
    assert words in verdict.seen


def test_free_space_is_known_of_local_folders_only(tmp_path: Path) -> None:
    assert (disk.free_space(str(tmp_path / "runs")) or 0) > 0
    assert disk.free_space("s3://bucket/runs") is None
