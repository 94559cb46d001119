"""Checkpoints stand whole in a folder that nobody else can open until they are stored."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import OLD, save

from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import RunFolder
from qa_ray.storage.staging import Staging, discard, private_folder, staging_place

STRANGER = 54_321
REFUSAL = r"must be a folder of your own that nobody else can open \(chmod 700\)"


def fill(folder: Path) -> None:
    save(folder, OLD)


@pytest.fixture
def staging(folder: RunFolder) -> Staging:
    return Staging(folder, "2")


@pytest.fixture
def planted(copies: Path) -> Path:
    """Where anybody could guess that checkpoints will stand."""
    return copies / f"qa_ray-{os.getuid()}"


def test_checkpoints_stand_in_a_folder_that_only_its_user_can_open(staging: Staging, planted: Path) -> None:
    before = os.umask(0)
    try:
        staged = staging.make("step-1", fill)
    finally:
        os.umask(before)
    assert planted in staged.parents
    assert stat.S_IMODE(planted.lstat().st_mode) == 0o700
    assert {path.name for path in staged.iterdir()} == {"state.pt", "model", "packed.gz"}


@pytest.mark.parametrize("foreign", [False, True], ids=["own", "another user's"])
def test_link_in_its_place_is_not_followed(staging: Staging, planted: Path, tmp_path: Path, foreign: bool) -> None:
    if foreign and os.getuid():
        pytest.skip("only root may give away a link")
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    planted.symlink_to(tmp_path / "elsewhere")
    if foreign:
        os.lchown(planted, STRANGER, STRANGER)
    for work in (private_folder, staging.waiting, lambda: staging.make("step-1", fill)):
        with pytest.raises(StorageError, match=REFUSAL) as raised:
            work()
        assert str(planted) in str(raised.value)
        assert "TMPDIR" in str(raised.value)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_folder_of_another_user_is_refused(staging: Staging, planted: Path) -> None:
    if os.getuid():
        pytest.skip("only root may give away a folder")
    planted.mkdir(mode=0o700)
    os.chown(planted, STRANGER, STRANGER)
    with pytest.raises(StorageError, match=REFUSAL):
        staging.make("step-1", fill)
    assert not list(planted.iterdir())


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755])
def test_folder_that_others_can_open_is_refused(staging: Staging, planted: Path, mode: int) -> None:
    planted.mkdir()
    planted.chmod(mode)
    with pytest.raises(StorageError, match=REFUSAL):
        staging.make("step-1", fill)
    assert not list(planted.iterdir())


def test_later_group_finds_what_is_whole_and_deletes_what_is_not(folder: RunFolder, staging: Staging) -> None:
    killed = """
import os, pathlib, sys
from qa_ray.storage.run_folder import RunFolder
from qa_ray.storage.staging import Staging
def fill(folder):
    (folder / "half").write_bytes(b"half")
    if whole:
        return
    os._exit(9)
staging = Staging(RunFolder(sys.argv[1], "run"), "1")
whole = True
staging.make("step-1-evaluated", fill)
whole = False
staging.make("step-2", fill)
"""
    environment = os.environ | {"TMPDIR": str(private_folder().parent)}
    ended = subprocess.run([sys.executable, "-c", killed, folder.storage_path], env=environment, check=False)
    assert ended.returncode == 9
    left = staging_place(folder) / "1"
    assert {path.name for path in left.iterdir()} == {"step-1-evaluated", "step-2.part"}
    (waiting,) = staging.waiting()
    assert waiting == left / "step-1-evaluated"
    own = staging.adopt(waiting)
    assert own is not None
    assert own.parent == staging.place
    assert (own / "half").read_bytes() == b"half"
    assert staging.adopt(waiting) is None, "there is one of it"
    staging.clear_others()
    assert list(staging_place(folder).iterdir()) == [staging.place]


def test_group_leaves_alone_what_a_later_one_keeps(folder: RunFolder, staging: Staging) -> None:
    later = Staging(folder, "3").make("step-1", fill)
    assert staging.waiting() == []
    staging.clear_others()
    assert later.exists()


def test_half_of_a_checkpoint_that_is_deleted_does_not_look_whole(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = staging.make("step-1", fill)
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda *_, **__: None)
        discard(staged)
    assert [path.name for path in staging.place.iterdir()] == ["step-1.part"]


def test_checkpoint_that_is_made_again_replaces_the_one_before(staging: Staging) -> None:
    staging.make("step-1", fill)
    staged = staging.make("step-1", lambda folder: (folder / "other").touch())
    assert [path.name for path in staging.place.rglob("*")] == ["step-1", "other"]
    staging.clear()
    assert not staged.parent.parent.exists()
