"""Locations inside installed packages, and locations that hold secrets."""

from pathlib import Path

import pytest

import qa_ray
from qa_ray.errors import ConfigError
from qa_ray.locations import holds_secret, is_local, resolve, within, without_password


def test_package_location_is_the_installed_file() -> None:
    expected = Path(qa_ray.__file__).parent / "data" / "sample" / "train.json"
    assert Path(resolve("package://qa_ray/data/sample/train.json")) == expected


@pytest.mark.parametrize("location", ["train.json", "/abs/train.json", "s3://bucket/train.json"])
def test_other_locations_stay_as_they_are(location: str) -> None:
    assert resolve(location) == location


@pytest.mark.parametrize("location", ["package://no_such_package/x", "package:///x", "package://a.b/x"])
def test_package_that_is_not_installed_is_named(location: str) -> None:
    with pytest.raises(ConfigError, match="is not installed"):
        resolve(location)


@pytest.mark.parametrize(
    "location",
    [
        "s3://key:secret@bucket/runs",
        "s3://key:@bucket/runs",
        "http://me:open%20sesame@host:5000",
        "postgresql+psycopg2://me:open-sesame@db/mlflow",
        "s3://bucket/runs?access_key=a&secret_key=b",
        "s3://bucket/runs?SECRET_KEY=b",
        "s3://bucket/runs?session_token=c",
        "https://host/train.json?password=d",
    ],
)
def test_credentials_in_a_uri_are_found(location: str) -> None:
    assert holds_secret(location)


@pytest.mark.parametrize(
    "location",
    [
        "runs",
        "/abs/me:secret@folder?password=x",
        "s3://bucket/runs",
        "s3://bucket/token/secret.json",
        "s3://bucket/runs?endpoint_override=http%3A%2F%2Flocalhost%3A9000&region=eu",
        "http://me@host:5000",
        "sqlite:////home/me/mlflow.db",
        "package://qa_ray/data/sample/train.json",
        "gs://bucket/a:b@c",
    ],
)
def test_uri_without_credentials_is_fine(location: str) -> None:
    assert not holds_secret(location)


@pytest.mark.parametrize(
    ("location", "local"), [("runs", True), ("/abs", True), ("s3://b", False), ("gs://b/x", False)]
)
def test_uri_is_not_local(location: str, local: bool) -> None:
    assert is_local(location) is local


@pytest.mark.parametrize(
    ("folder", "location"),
    [
        ("/runs/", "/runs/first run/model"),
        ("package://sample/data", "package://sample/data/first run/model"),
        ("s3://bucket/runs/", "s3://bucket/runs/first%20run/model"),
        ("s3://bucket/runs?region=eu&x=1", "s3://bucket/runs/first%20run/model?region=eu&x=1"),
    ],
)
def test_location_within_a_folder_keeps_the_options_of_its_filesystem(folder: str, location: str) -> None:
    assert within(folder, "first run/model") == location


def test_text_loses_the_credentials_of_its_uris() -> None:
    text = "cannot reach https://me:secret@host:5000/x, nor postgresql://me@db/y; mail me@host"
    assert without_password(text) == "cannot reach https://host:5000/x, nor postgresql://db/y; mail me@host"
