"""What the inspection can be asked for."""

import dataclasses

import pytest

from qa_ray.cli.arguments import parse_run
from qa_ray.config.recipes import RECIPES
from qa_ray.errors import ConfigError
from qa_ray.inspection.options import as_inspection


def test_words_are_those_of_a_run_and_the_folder() -> None:
    config = parse_run(["minilm", "--window.stride", "64", "--out", "seen"], as_inspection).config
    assert (config.window.stride, config.out) == (64, "seen")
    assert as_inspection(RECIPES["minilm"]()).out == "inspection"


def test_page_is_not_written_to_other_machines() -> None:
    with pytest.raises(ConfigError, match="--out=s3://bucket/seen must be a folder on this machine"):
        dataclasses.replace(as_inspection(RECIPES["minilm"]()), out="s3://bucket/seen")
