"""A run's folder, on a local disk and on S3."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import fs

from qa_ray.config.operation import RunConfig
from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import RunFolder

# Downloads go where pytest cleans up.
pytestmark = pytest.mark.usefixtures("copies")


def locate(place: Path | str, name: str | None = "first") -> RunFolder:
    return RunFolder.locate(RunConfig(name=name, storage_path=str(place)))


@pytest.fixture(params=["local", "file URI", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    """The folder of a new run on each kind of storage."""
    if request.param == "s3":
        return locate(request.getfixturevalue("s3_folder"))
    return locate(tmp_path / "runs" if request.param == "local" else f"file://{tmp_path}/runs")


def test_locating_a_run_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("runs") == RunFolder(f"{tmp_path}/runs", "first")
    assert locate("s3://bucket/runs") == RunFolder("s3://bucket/runs", "first")
    assert not list(tmp_path.iterdir())


def test_run_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"run\.name is not set"):
        locate(tmp_path, None)


@pytest.mark.parametrize(
    ("storage_path", "uri"),
    [
        ("/runs", "/runs/a b"),
        ("/odd?/runs/", "/odd?/runs/a b"),
        ("s3://bucket/runs/", "s3://bucket/runs/a%20b"),
        ("s3://bucket/runs?scheme=http&region=x", "s3://bucket/runs/a%20b?scheme=http&region=x"),
        ("s3://bucket?scheme=http", "s3://bucket/a%20b?scheme=http"),
    ],
)
def test_name_of_the_run_goes_before_the_query_of_a_uri(storage_path: str, uri: str) -> None:
    assert RunFolder(storage_path, "a b").uri == uri


@pytest.mark.parametrize("name", ["plain", "a b", "100%20"])
def test_uri_and_path_are_the_same_place(tmp_path: Path, name: str) -> None:
    locate(f"file://{tmp_path}", name).write("b.txt", b"x")
    assert (tmp_path / name / "b.txt").read_bytes() == b"x"
    assert locate(tmp_path, name).read("b.txt") == b"x"


def test_what_is_written_is_read(folder: RunFolder) -> None:
    assert not folder.exists()
    assert folder.read("deep/config.json") is None
    folder.write("deep/config.json", b"old, and longer")
    folder.write("deep/config.json", b"new")
    assert folder.exists()
    assert folder.read("deep/config.json") == b"new"
    assert folder.read("deep/other.json") is None


def test_packed_files_arrive_as_they_are(folder: RunFolder) -> None:
    folder.write("predictions.json.gz", b"\x1f\x8b packed")
    assert folder.read("predictions.json.gz") == b"\x1f\x8b packed"
    assert (folder.download("") / "predictions.json.gz").read_bytes() == b"\x1f\x8b packed"


def test_folders_arrive_and_return(folder: RunFolder, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file.txt").write_text("one")
    folder.copy(fs.LocalFileSystem(), str(source), "model")
    folder.write("config.json", b"{}")
    assert (folder.download("model") / "deep" / "file.txt").read_text() == "one"
    assert sorted(path.name for path in folder.download("").iterdir()) == ["config.json", "model"]


def test_removed_run_is_gone(folder: RunFolder) -> None:
    folder.remove()
    folder.write("deep/config.json", b"{}")
    folder.remove()
    assert not folder.exists()
    assert folder.read("deep/config.json") is None


LIMITED = """
import resource, sys
from qa_ray.storage.run_folder import RunFolder

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
RunFolder(sys.argv[1], "first").write("log", b"n" * 5000)
"""


def test_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    """A limit on file sizes stands for a full disk: the write stops in the middle."""
    folder = locate(tmp_path)
    folder.write("log", b"old")
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    last = finished.stderr.splitlines()[-1]
    assert "StorageError: run.storage_path=" in last
    assert "File too large" in last
    assert folder.read("log") == b"old"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a path that even root cannot write: /proc")
def test_path_that_cannot_be_written_is_named() -> None:
    with pytest.raises(StorageError, match=r"run\.storage_path=/proc/runs cannot be written"):
        locate("/proc/runs").write("config.json", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        locate(tmp_path).write("config.json", b"")


def test_file_in_the_place_of_the_storage_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = locate(tmp_path / "file")
    with pytest.raises(StorageError, match=r"run\.storage_path=.*file cannot be written"):
        folder.write("config.json", b"")
    with pytest.raises(StorageError, match=r"run\.storage_path=.*file cannot be read"):
        folder.read("config.json")


def test_folder_that_is_not_there_cannot_be_downloaded(s3_folder: str) -> None:
    with pytest.raises(StorageError, match=r"run\.storage_path=s3:.* cannot be copied to "):
        locate(s3_folder).download("model")


@pytest.mark.parametrize("uri", ["nosuch://bucket", "s3://bucket?nosuch=1", "s3://a b/runs"])
def test_uri_that_cannot_be_opened_is_named(uri: str) -> None:
    with pytest.raises(StorageError) as caught:
        locate(uri).exists()
    assert str(caught.value).startswith(f"run.storage_path={uri} cannot be opened: ")
    assert "\n" not in str(caught.value)


def test_bucket_that_does_not_exist_is_named(s3: str) -> None:
    folder = locate(s3.replace("bucket", "nosuch", 1))
    assert not folder.exists()
    assert folder.read("config.json") is None
    with pytest.raises(StorageError, match=r"run\.storage_path=s3://nosuch.* cannot be written: .*not found") as caught:
        folder.write("config.json", b"")
    assert "\n" not in str(caught.value)
