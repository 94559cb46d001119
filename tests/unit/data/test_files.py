"""Data files are found wherever a location points, and a location that points nowhere says where it looked."""

import pytest

from qa_ray.config.data import DataConfig
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
        ("**/*.[jp]*", ["b.jsonl", "c/d e.jsonl", "c/d/f.parquet"]),
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
        (
            "empty",
            ["no file with a known ending (.json, .jsonl, .ndjson, .parquet, .csv, .tsv) lies in {folder}/empty"],
        ),
        (
            "README.md",
            [
                "'README.md'",
                ".csv, .tsv, each also with .gz, .bz2, .zst, .xz",
                "Set data.format to one of squad, jsonl, parquet, csv, tsv",
            ],
        ),
        ("packed.gz", ["the ending of 'packed.gz' does not tell its layout"]),
        ("f.parquet.gz", ["'f.parquet.gz' is Parquet, which is compressed by itself: unpack it first"]),
        ("https://example.org/train.json", ["https://example.org/train.json cannot be opened", "Download"]),
    ],
)
def test_location_that_cannot_be_used_says_why(folder, location, messages):
    (folder / "empty").mkdir()
    for name in ("packed.gz", "f.parquet.gz"):
        (folder / name).touch()
    with pytest.raises(DataError) as error:
        find_files(AUTO, location.format(folder=folder))
    for message in messages:
        assert message.format(folder=folder) in str(error.value)


def test_stated_format_is_taken_whatever_the_ending(folder):
    (file,) = find_files(DataConfig(format=DataFormat.JSONL), "README.md")
    assert file.format is DataFormat.JSONL


@pytest.mark.parametrize(
    ("name", "layout", "compression"),
    [
        ("f.JSON", DataFormat.SQUAD, None),
        ("f.jsonl.gz", DataFormat.JSONL, "gzip"),
        ("f.v2.json.xz", DataFormat.SQUAD, "xz"),
        ("f.csv.zst", DataFormat.CSV, "zstd"),
        ("f.tsv.BZ2", DataFormat.TSV, "bzip2"),
    ],
)
def test_endings_tell_layout_and_compression(tmp_path, name, layout, compression):
    (tmp_path / name).touch()
    (file,) = find_files(AUTO, str(tmp_path))
    assert (file.name, file.format, file.compression) == (name, layout, compression)


def test_stated_format_leaves_the_compression_to_the_ending(tmp_path):
    (tmp_path / "packed.gz").touch()
    (file,) = find_files(DataConfig(format=DataFormat.JSONL), str(tmp_path / "packed.gz"))
    assert (file.format, file.compression) == (DataFormat.JSONL, "gzip")
