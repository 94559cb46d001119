"""Storage that all nodes see: tried by files that are written, read by the others, and deleted; and its room."""

from pathlib import Path

import pytest

from qa_ray.doctor.nodes import Nodes
from qa_ray.doctor.outputs import absent_folders, delete, enough_space, free_space, names, same_storage, temporary
from qa_ray.doctor.verdict import Status
from qa_ray.storage.run_folder import RunFolder

GB = 10**9
NO_NODES = Nodes((), patience_s=60)


def test_sound_storage_passes_and_nothing_stays(tmp_path: Path) -> None:
    verdict = same_storage(NO_NODES, str(tmp_path / "new" / "runs"))
    assert verdict.status is Status.PASSED, verdict
    assert not list(tmp_path.iterdir())


def test_store_is_tried_alike(s3_folder: str) -> None:
    verdict = same_storage(NO_NODES, s3_folder)
    assert verdict.status is Status.PASSED, verdict
    assert not [name for name in names(RunFolder(s3_folder, "")) if name.startswith(".qa_ray")]


def test_folder_that_was_there_stays_and_so_does_a_run_that_begins_meanwhile(tmp_path: Path) -> None:
    storage = tmp_path / "new" / "runs"
    probe = RunFolder(str(storage), "probe")
    absent = absent_folders(probe)
    assert absent == (str(storage), str(storage.parent))
    probe.write("a", b"")
    (storage / "another run").mkdir()
    delete(probe, absent)
    assert [path.name for path in storage.iterdir()] == ["another run"]
    delete(probe, ())
    assert storage.is_dir()


def test_file_in_the_place_of_the_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    verdict = same_storage(NO_NODES, str(tmp_path / "runs"))
    assert verdict.status is Status.FAILED
    assert f"the driver: run.storage_path={tmp_path / 'runs'} cannot be written" in verdict.seen
    assert "--run.storage-path" in verdict.cure


@pytest.mark.parametrize(
    ("free", "left", "status", "words"),
    [
        (6 * GB, 5 * GB, Status.PASSED, "a checkpoint takes 1.2 GB, the run 5.2 GB; 6.0 GB are free"),
        (None, 5 * GB, Status.PASSED, "not known"),
        (5 * GB, 5 * GB, Status.FAILED, "only 5.0 GB are free in run.storage_path"),
        (6 * GB, 2 * GB, Status.FAILED, "a: 2.0 GB are free in /scratch"),
    ],
    ids=["enough", "a store", "storage full", "temporary folder full"],
)
def test_checkpoints_fit(free: int | None, left: int, status: Status, words: str) -> None:
    verdict = enough_space(free, {"a": ("/scratch", left)}, num_weights=100_000_000, keep=2)
    assert verdict.status is status
    assert words in verdict.seen


def test_free_space_is_known_of_local_folders_only(tmp_path: Path) -> None:
    assert free_space(str(tmp_path / "not" / "yet"))
    assert free_space("s3://bucket/runs") is None
    folder, free = temporary()
    assert Path(folder).is_dir()
    assert free > 0
