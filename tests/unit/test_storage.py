"""A run's folder."""

import os
from pathlib import Path

import pytest
from pyarrow import fs

from qa_ray.config import RunConfig
from qa_ray.errors import StorageError
from qa_ray.storage import RunFolder


def create(place: Path, name: str = "first") -> RunFolder:
    return RunFolder.create(RunConfig(name=name, storage_path=str(place)))


def test_files_and_folders_arrive(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file.txt").write_text("one")
    folder = create(tmp_path / "runs")
    folder.copy(fs.LocalFileSystem(), str(source), "model")
    folder.write("config.json", b"{}")
    assert (tmp_path / "runs" / "first" / "model" / "deep" / "file.txt").read_text() == "one"
    assert (folder.download("model") / "deep" / "file.txt").read_text() == "one"
    assert (tmp_path / "runs" / "first" / "config.json").read_bytes() == b"{}"


def test_uri_and_path_are_the_same_place(tmp_path: Path) -> None:
    folder = RunFolder.create(RunConfig(name="first", storage_path=f"file://{tmp_path}"))
    folder.write("b.txt", b"x")
    assert (tmp_path / "first" / "b.txt").read_bytes() == b"x"
    assert (folder.download("") / "b.txt").read_bytes() == b"x"


def test_second_run_of_a_name_is_refused_and_the_first_kept(tmp_path: Path) -> None:
    create(tmp_path).write("result", b"precious")
    with pytest.raises(StorageError, match=r"run\.name=first: a run of this name exists"):
        create(tmp_path)
    assert (tmp_path / "first" / "result").read_bytes() == b"precious"


def test_removed_run_leaves_its_name_free(tmp_path: Path) -> None:
    create(tmp_path).remove()
    create(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a path that even root cannot write: /proc")
def test_path_that_cannot_be_written_is_named() -> None:
    with pytest.raises(StorageError, match=r"run\.storage_path=/proc/runs cannot be written"):
        create(Path("/proc/runs"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        create(tmp_path)


def test_file_in_the_place_of_the_storage_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"run\.storage_path=.*file cannot be"):
        create(tmp_path / "file")


def test_unknown_scheme_is_named() -> None:
    with pytest.raises(StorageError, match=r"run\.storage_path=nosuch://bucket cannot be opened"):
        RunFolder.create(RunConfig(name="first", storage_path="nosuch://bucket"))
