"""What waits on the disk, with processes that are killed and disks that are full."""

import errno
import os
from pathlib import Path

import pytest

from qa_ray.tracking.spool import Spool


def reopened(folder: Path, owner: str = "run") -> dict[int, dict]:
    (spool,) = Spool.left_over(folder, owner)
    items = spool.items
    spool.close(empty=False)
    return items


def left_behind(folder: Path, *values: int) -> Path:
    """A file of a process that has ended."""
    spool = Spool.create(folder, "run")
    spool.add([{"kind": "metric", "value": value} for value in values])
    spool.close(empty=False)
    return spool.path


def test_items_that_are_not_done_with_outlive_their_process(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "run")
    first, second, third = spool.add([{"value": value} for value in (1, 2, float("inf"))])
    spool.done([second], empty=False)
    spool.close(empty=False)
    assert reopened(tmp_path) == {first: {"value": 1}, third: {"value": float("inf")}}


def test_file_is_short_while_nothing_waits_and_gone_at_the_end(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "run")
    spool.done(spool.add([{"value": 1}]), empty=True)
    assert spool.path.stat().st_size == 0
    spool.close(empty=True)
    assert not list(tmp_path.iterdir())


def test_half_a_line_costs_no_other_line(tmp_path: Path) -> None:
    path = left_behind(tmp_path, 1, 2)
    path.write_bytes(path.read_bytes()[:-5])
    (spool,) = Spool.left_over(tmp_path, "run")
    spool.add([{"value": 3}])
    spool.close(empty=False)
    assert [item["value"] for item in reopened(tmp_path).values()] == [1, 3]


def test_file_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    left_behind(tmp_path, 1)
    (owner,) = Spool.left_over(tmp_path, "run")
    assert Spool.left_over(tmp_path, "run") == []
    owner.close(empty=False)
    assert reopened(tmp_path)


def test_only_the_named_owners_files_are_found(tmp_path: Path) -> None:
    left_behind(tmp_path, 1)
    assert Spool.left_over(tmp_path, "other") == []
    (spool,) = Spool.left_over(tmp_path, "ru")
    assert spool.owner == "run"
    spool.close(empty=True)


def test_copies_are_kept_until_they_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.json").write_text("{}")
    spool = Spool.create(tmp_path / "spool", "run")
    copy = spool.keep_copy(tmp_path / "files")
    assert (copy / "a.json").read_text() == "{}"
    spool.drop_copy(copy)
    spool.drop_copy(tmp_path / "files")
    assert not copy.exists()
    assert (tmp_path / "files").exists()
    spool.close(empty=True)


def test_disk_that_is_full_is_said_once_and_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool.create(tmp_path, "run")
    (tmp_path / "files").mkdir()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        patched.setattr("shutil.copytree", full)
        spool.add([{"value": 1}])
        spool.add([{"value": 2}])
        assert spool.keep_copy(tmp_path / "files") == tmp_path / "files"
    spool.add([{"value": 3}])
    spool.close(empty=False)
    assert [item["value"] for item in reopened(tmp_path).values()] == [3]
    assert caplog.text.count("No space left on device") == 1
