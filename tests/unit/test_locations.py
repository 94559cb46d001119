"""Locations inside installed packages, and locations that hold secrets."""

from pathlib import Path

import pytest

import qa_ray
from qa_ray.errors import ConfigError
from qa_ray.locations import holds_secret, is_local, names_secret, resolve, within, without_secrets


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
        "http://c4n4ry@host:5000",
        "http://c4n4ry:@host:5000/path",
        "https://c4n4ry@host?region=eu",
        "s3://c4n4ry@bucket/runs",
        "http://[c4n4ry@host",
        "postgresql://hf_abcdefghijklmnopqrst@db/mlflow",
        "abfss://container:c4n4ry@account.dfs.core.windows.net/runs",
        "https://host/x?pwd=c4n4ry",
        "https://host/x?PASS=c4n4ry",
        "https://host/x?user=me&auth=c4n4ry",
        "https://host/x?authToken=c4n4ry",
        "https://host/x?Authorization=c4n4ry",
        "https://host/x?code=c4n4ry",
        "https://host/x?a=1;sslpassword=c4n4ry",
        "https://host/x?X-Amz-Signature=c4n4ry",
        "https://account.blob.core.windows.net/c/b?sv=2024&sig=c4n4ry",
        "https://host/x#access_token=c4n4ry",
        "https://host/x?p%77d=c4n4ry",
        "s3://bucket/runs?endpoint_override=http%3A%2F%2Fme%3Ac4n4ry%40localhost",
        "s3://bucket/runs?endpoint_override=me:c4n4ry@localhost:9000",
        "https://host/hf_abcdefghijklmnopqrst/train.json",
        "AKIAABCDEFGHIJKLMNOP",
        "runs/ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
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
        "sqlite:////home/me/mlflow.db",
        "package://qa_ray/data/sample/train.json",
        "gs://bucket/a:b@c",
        "https://host/a@b?page=2#c",
        "https://host/x?author=me&encoding=utf-8&codec=a&design=b&passage=c&contact=me@host",
        "abfss://container@account.dfs.core.windows.net/runs",
        "wasbs://container@account.blob.core.windows.net/runs",
        "hdfs://me@namenode:8020/runs",
        "postgresql+psycopg2://me@db/mlflow?sslmode=require",
        "me@host:folder/train.json",
        "rajpurkar/squad",
        "sentence-transformers/all-MiniLM-L6-v2",
        "models:/qa@champion",
        "hf_datasets/squad",
        "sk-learn-models-for-question-answering/data",
        "hf_questionanswering",
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "cannot reach https://me:secret@host:5000/x, nor postgresql://me@db/y; mail me@host",
            "cannot reach https://host:5000/x, nor postgresql://db/y; mail me@host",
        ),
        ("http://me:p@ss@host/x?page=2", "http://host/x?page=2"),
        ("GET http://host/x?page=2&sig=c4n4ry failed", "GET http://host/x?page=2&sig=*** failed"),
        ("'http://host/x?code=c4n4ry'", "'http://host/x?code=***'"),
        ("Authorization: Bearer c4n4ry", "Authorization: Bearer ***"),
        ("the token hf_abcdefghijklmnopqrst is none", "the token *** is none"),
        ("why? it is 1 = 1; a key=b", "why? it is 1 = 1; a key=b"),
    ],
)
def test_text_loses_what_lets_in(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    ("name", "speaks"),
    [
        ("api_key", True),
        ("hubToken", True),
        ("mlflow.auth", True),
        ("oauth", True),
        ("db_pwd", True),
        ("model.trust_remote_code", False),
        ("author", False),
        ("passages", False),
        ("signal", False),
    ],
)
def test_name_of_a_secret_is_known_by_its_words(name: str, speaks: bool) -> None:
    assert names_secret(name) is speaks
