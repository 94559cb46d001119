"""Configurations in files: what is read over what, what is refused in which words, and what is written."""

import ast
import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qa_ray.config.fields import flatten
from qa_ray.config.files import build, json_schema, override, read_config, to_toml
from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import Precision
from qa_ray.config.recipes import RECIPES, minilm, sample
from qa_ray.errors import ConfigError
from qa_ray.prediction.options import PredictionOptions
from qa_ray.tuning.options import SamplerKind, SweepConfig, as_sweep

Write = Callable[..., Path]


def same(config: Config) -> Config:
    return config


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def call(text: str, name: str = "mine.toml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return call


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_written_is_read_as_the_same(recipe: str, write: Write) -> None:
    config = RECIPES[recipe]()
    assert read_config(write(to_toml(config)), same) == config
    assert read_config(write(json.dumps(asdict(config)), "config.json"), same) == config
    assert read_config(write(to_toml(as_sweep(config))), as_sweep) == as_sweep(config)


def test_text_that_toml_would_misread_comes_back(write: Write) -> None:
    name = 'größer "zitiert" \\ tab\t\u2028 🙂'
    config = replace(sample(), tracking=replace(sample().tracking, experiment=name))
    assert read_config(write(to_toml(config)), same).tracking.experiment == name


def test_field_without_a_value_is_written_only_where_its_default_has_one() -> None:
    config = replace(sample(), checkpoint=replace(sample().checkpoint, every_minutes=None))
    written = tomllib.loads(to_toml(config))
    assert written["checkpoint"]["every_minutes"] == "None"
    assert "every_steps" not in written["checkpoint"]


def test_file_without_a_recipe_starts_from_the_defaults(write: Write) -> None:
    config = read_config(write("[optim]\nlearning_rate = 1e-4\n"), same)
    assert config == replace(Config(), optim=replace(Config().optim, learning_rate=1e-4))


def test_recipe_of_ones_own_is_a_file_that_others_start_from(write: Write, tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    write('recipe = "minilm"\n[optim]\nlearning_rate = 1e-4\nweight_decay = 0.3\n', "team/ours.toml")
    config = read_config(write('recipe = "team/ours.toml"\n[optim]\nweight_decay = 0.2\n'), same)
    assert (config.optim.learning_rate, config.optim.weight_decay) == (1e-4, 0.2)
    assert config.model == minilm().model


def test_files_that_lead_to_each_other_are_refused(write: Write) -> None:
    write('recipe = "b.toml"\n', "a.toml")
    with pytest.raises(ConfigError, match=r"a\.toml: recipe='b\.toml' leads back"):
        read_config(write('recipe = "a.toml"\n', "b.toml"), same)


def test_space_that_a_sweep_searches_by_default_is_around_the_files_own_values(write: Write) -> None:
    config = read_config(
        write('recipe = "minilm"\n[optim]\nlearning_rate = 1e-3\n[tune]\nsampler = "random"\n'), as_sweep
    )
    assert config.space[0] == "optim.learning_rate=loguniform(0.0002, 0.005)"
    assert config.tune.sampler is SamplerKind.RANDOM


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim]\nlearning_rte = 1", "optim.learning_rte is no field: did you mean optim.learning_rate?"),
        ("learning_rate = 1", "learning_rate is no field: did you mean optim.learning_rate?"),
        ("[optm]\nlearning_rate = 1", "optm is no field: did you mean optim?"),
        ("[data.columns]\ncontxt = 'a'", "data.columns.contxt is no field: did you mean data.columns.context?"),
        ("[qqq]", "qqq is no field: there are batch, checkpoint,"),
        ("[tune]\nseed = 1", "tune is no field"),
        ("[optim]\nlearning_rate = 'fast'", 'optim.learning_rate="fast": should be a valid number'),
        ("[train]\nseed = true", "train.seed=true: should be a valid integer"),
        ("[train]\nepochs = 2.5", "train.epochs=2.5: should be a valid integer"),
        ("[cluster]\nnum_workers = 'x'", 'cluster.num_workers="x": should be a valid integer, or should be a valid'),
        ("[optim]\nschedule = 'cosin'", "optim.schedule=\"cosin\": should be 'linear', 'cosine', 'constant' or 'wsd'"),
        ("optim = 3", "optim=3: should be an object"),
        ("[window]\nstride = 999", "window.stride=999 must be in [0, window.max_length=384)"),
        ("recipe = 'smaple'", "there is no recipe 'smaple': did you mean sample?"),
        ("recipe = 3", "recipe=3 must be the name of a recipe"),
        ("recipe = 'gone.toml'", "gone.toml cannot be read: No such file"),
        ("[optim\n", "cannot be read: Expected ']'"),
    ],
)
def test_mistake_is_told_with_its_file_field_and_value(text: str, message: str, write: Write) -> None:
    with pytest.raises(ConfigError) as raised:
        read_config(write(text), same)
    assert message in str(raised.value)
    assert "mine.toml" in str(raised.value) or "gone.toml" in str(raised.value)


def test_json_that_is_no_object_is_refused(write: Write) -> None:
    with pytest.raises(ConfigError, match="must hold sections"):
        read_config(write("[1]", "a.json"), same)


def test_password_in_a_file_is_refused_and_not_shown(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri holds a password") as raised:
        read_config(write("[tracking]\nuri = 'http://me:open-sesame@host'"), same)
    assert "open-sesame" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"train\.seed=") as raised:
        read_config(write("[train]\nseed = 'http://me:open-sesame@host'"), same)
    assert "open-sesame" not in str(raised.value)


def test_override_replaces_fields_and_keeps_the_rest() -> None:
    config = override(sample(), {"train": {"epochs": 9, "precision": Precision.FP32}}, "arguments")
    assert config == replace(sample(), train=replace(sample().train, epochs=9, precision=Precision.FP32))
    with pytest.raises(ConfigError, match=r"arguments: train\.epoch is no field: did you mean train\.epochs\?"):
        override(sample(), {"train": {"epoch": 9}}, "arguments")


def test_configuration_is_checked_without_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two threads that parse source at once fail now and then, before Python 3.11.8.
    monkeypatch.setattr(ast, "parse", lambda *_args, **_kwargs: pytest.fail("source is parsed"))
    assert override(sample(), {"train": {"epochs": 9}}, "arguments").train.epochs == 9


def test_options_are_built_of_plain_values() -> None:
    options = build(PredictionOptions, {"model": "m", "data": "d", "precision": "fp32", "cluster": {}}, "predict")
    assert options == PredictionOptions(model="m", data="d", precision=Precision.FP32)
    with pytest.raises(ConfigError, match=r"predict: topk is no field: did you mean top_k\?"):
        build(PredictionOptions, {"model": "m", "data": "d", "topk": 3}, "predict")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema(SweepConfig)


def test_schema_takes_every_recipe_and_has_the_documentation(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    for recipe in RECIPES.values():
        jsonschema.validate(tomllib.loads(to_toml(as_sweep(recipe()))), schema)
        jsonschema.validate(json.loads(json.dumps(asdict(recipe()))), schema)
    jsonschema.validate({"recipe": "minilm", "optim": {"learning_rate": 1e-4}}, schema)
    assert schema["$defs"]["WindowConfig"]["properties"]["stride"]["description"].startswith("Context tokens that two")
    described = str(schema)
    assert all(name.rpartition(".")[2] in described for name, _ in flatten(sample()))


@pytest.mark.parametrize("wrong", [{"optm": {}}, {"optim": {"learning_rte": 1}}, {"train": {"epochs": "three"}}])
def test_schema_refuses_what_reading_refuses(wrong: dict[str, Any], schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)
