"""Locations inside installed packages."""

from pathlib import Path

import pytest

import qa_ray
from qa_ray.errors import ConfigError
from qa_ray.locations import resolve


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
