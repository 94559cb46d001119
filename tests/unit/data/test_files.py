"""Data files are found wherever a location points, and a location that points nowhere says where it looked."""

import pytest

from qa_ray.config.fine_tuning import DataConfig
from qa_ray.config.policies import DataFormat
from qa_ray.data.files import find_files
from qa_ray.errors import ConfigError, DataError

AUTO = DataConfig()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("b.jsonl", "a.ndjson", ".hidden.jsonl", "README.md", "c/d e.jsonl", "c/d/f.parquet", "[x]/g.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(location):
    return [file.name for file in find_files(AUTO, location)]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("b.jsonl", ["b.jsonl"]),
        (".", ["a.ndjson", "b.jsonl"]),
        ("c/", ["d e.jsonl"]),
        ("*.jsonl", ["b.jsonl"]),
        ("?.*json*", ["a.ndjson", "b.jsonl"]),
        ("[ac].ndjson", ["a.ndjson"]),
        ("*/*.jsonl", ["c/d e.jsonl"]),
        ("c/**/*.parquet", ["d/f.parquet"]),
        ("**/*.jsonl", ["b.jsonl", "c/d e.jsonl"]),
        ("[x]", ["g.csv"]),
        ("[x]/g.csv", ["g.csv"]),
    ],
)
def test_location_names_files(folder, location, expected):
    assert names(location) == expected
    assert names(f"{folder}/{location}") == expected
    for file in find_files(AUTO, location):
        filesystem, path = file.open()
        assert path == file.location
        assert path.startswith(f"{folder}/")
        assert filesystem.get_file_info(path).is_file


@pytest.mark.parametrize("location", ["c", "c/*.jsonl", "c/d%20e.jsonl"], ids=["folder", "glob", "file"])
def test_uri_names_files_that_open(folder, location):
    (file,) = find_files(AUTO, f"file://{folder}/{location}")
    assert file.location == f"file://{folder}/c/d%20e.jsonl"
    assert file.open()[1] == f"{folder}/c/d e.jsonl"


@pytest.mark.parametrize("location", ["p", "p/*.jsonl", "p/q.jsonl"], ids=["folder", "glob", "file"])
def test_package_location_is_resolved_again_where_it_is_opened(tmp_path, monkeypatch, location):
    for node in ("driver", "worker"):
        (tmp_path / node / "package_with_data" / "p").mkdir(parents=True)
        (tmp_path / node / "package_with_data" / "p" / "q.jsonl").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path / "driver")])
    (file,) = find_files(AUTO, f"package://package_with_data/{location}")
    assert file.location == "package://package_with_data/p/q.jsonl"
    monkeypatch.setattr("sys.path", [str(tmp_path / "worker")])
    assert file.open()[1] == str(tmp_path / "worker" / "package_with_data" / "p" / "q.jsonl")


def test_package_that_is_not_installed_is_named():
    with pytest.raises(ConfigError, match="'no_such_package' is not installed"):
        find_files(AUTO, "package://no_such_package/train.json")


def test_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert names("~/c") == ["d e.jsonl"]


@pytest.mark.parametrize(
    ("location", "messages"),
    [
        ("nowhere/train.json", ["there is no file or folder {folder}/nowhere/train.json", "data.hub"]),
        ("file://{folder}/nowhere", ["there is no file or folder {folder}/nowhere"]),
        ("nowhere/*.json", ["no file matches {folder}/nowhere/*.json"]),
        ("c/*.csv", ["no file matches {folder}/c/*.csv"]),
        ("empty", ["no file with a known ending (.json, .jsonl, .ndjson, .parquet, .csv) lies in {folder}/empty"]),
        ("README.md", ["'README.md'", "Set data.format to one of squad, jsonl, parquet, csv"]),
        ("**/*.[jp]*", ["files of several layouts (b.jsonl, c/d/f.parquet)", "glob"]),
        ("https://example.org/train.json", ["https://example.org/train.json cannot be opened", "Download"]),
    ],
)
def test_location_that_cannot_be_used_says_why(folder, location, messages):
    (folder / "empty").mkdir()
    with pytest.raises(DataError) as error:
        find_files(AUTO, location.format(folder=folder))
    for message in messages:
        assert message.format(folder=folder) in str(error.value)


def test_stated_format_is_taken_whatever_the_ending(folder):
    (file,) = find_files(DataConfig(format=DataFormat.JSONL), "README.md")
    assert file.format is DataFormat.JSONL
