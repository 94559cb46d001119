"""What pages show besides commands: Python compiles, and TOML, JSON and YAML are read by what takes them."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml
from documents import Block, blocks

from qa_ray.config.fields import flatten
from qa_ray.config.files import read_config
from qa_ray.tuning.space import read_space

LANGUAGES = {"bash", "json", "python", "text", "toml", "yaml"}


def shown(language: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", blocks(language), ids=lambda block: block.page)


@shown("python")
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.page, "exec")


@shown("json")
def test_json_is_a_row_whose_answer_stands_where_it_says(block: Block) -> None:
    for line in block.text.splitlines():
        row = json.loads(line)
        assert row["context"][row["answer_start"] :].startswith(row["answers"])


@shown("toml")
def test_toml_is_a_space_or_a_configuration(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "shown.toml"
    path.write_text(block.text)
    if "space" in block.text.partition("\n")[0]:
        assert read_space((str(path),)).keys() == dict(flatten(tomllib.loads(block.text))).keys()
    else:
        read_config(path, lambda recipe: recipe)


@shown("yaml")
def test_yaml_is_read(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.text), dict)


def test_every_block_names_a_language_that_is_looked_at() -> None:
    found = {language for language in ("", "mermaid", "sh", "console", "shell", *LANGUAGES) if blocks(language)}
    assert found <= LANGUAGES
