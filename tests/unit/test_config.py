"""Every field that can be wrong says so, with its name, its value and the rule."""

import dataclasses
import json

import pytest

from qa_ray import config, operation
from qa_ray.config import Config, flatten
from qa_ray.errors import ConfigError

SECTIONS = {
    "model": config.ModelConfig,
    "data": config.DataConfig,
    "window": config.WindowConfig,
    "batch": config.BatchConfig,
    "optim": config.OptimConfig,
    "train": config.TrainConfig,
    "evaluate": config.EvalConfig,
    "cluster": operation.ClusterConfig,
    "run": operation.RunConfig,
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model.name", ""),
        ("model.dropout", 1.0),
        ("data.train", ""),
        ("data.validation", ""),
        ("data.max_train_examples", 0),
        ("data.max_validation_examples", -1),
        ("window.max_length", 4),
        ("window.stride", -1),
        ("window.stride", 384),
        ("batch.size", 0),
        ("batch.max_tokens_per_device", 0),
        ("batch.pad_to_multiple_of", 0),
        ("batch.length_pool", 0),
        ("optim.learning_rate", 0.0),
        ("optim.weight_decay", -0.1),
        ("optim.betas", (0.9, 1.0)),
        ("optim.eps", 0.0),
        ("optim.warmup_ratio", 1.5),
        ("optim.max_grad_norm", -1.0),
        ("train.epochs", 0),
        ("train.max_steps", 0),
        ("train.seed", -1),
        ("train.log_every", 0),
        ("evaluate.n_best", 0),
        ("evaluate.max_answer_length", 0),
        ("evaluate.max_tokens_per_device", 0),
        ("cluster.local_cpus", 0),
        ("cluster.num_workers", 0),
        ("cluster.cpus_per_worker", 0),
        ("run.storage_path", ""),
        ("run.name", ".."),
        ("run.name", "a/b"),
    ],
)
def test_impossible_value_is_refused_by_name(field: str, value: object) -> None:
    section, name = field.split(".")
    with pytest.raises(ConfigError) as error:
        SECTIONS[section](**{name: value})
    assert field in str(error.value)
    assert str(value) in str(error.value)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ConfigError):
        config.OptimConfig(learning_rate=float("nan"))


def test_flatten_names_every_field_once() -> None:
    names = [name for name, _ in flatten(Config())]
    assert len(names) == len(set(names))
    assert {"window.stride", "data.columns.id", "optim.betas"} <= set(names)
    assert not any(dataclasses.is_dataclass(value) for _, value in flatten(Config()))


def test_configuration_is_frozen_and_json() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.seed = 1  # type: ignore[misc]
    assert json.loads(json.dumps(dataclasses.asdict(Config())))["train"]["precision"] == "auto"


def test_every_field_is_documented() -> None:
    """The text under a field is its help on the command line."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(config.__file__).read_text(encoding="utf-8"))
    for section in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name != "Config"):
        for place, node in enumerate(section.body):
            if isinstance(node, ast.AnnAssign):
                after = section.body[place + 1]
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{section.name}.{ast.unparse(node.target)}"
