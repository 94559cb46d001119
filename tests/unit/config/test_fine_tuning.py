"""Every field that can be wrong says so, with its name, its value and the rule."""

import dataclasses
import json

import pytest

from qa_ray.config import fine_tuning as config
from qa_ray.config import operation
from qa_ray.config.fields import flatten
from qa_ray.config.fine_tuning import Config
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
    "checkpoint": operation.CheckpointConfig,
    "tracking": operation.TrackingConfig,
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model.name", ""),
        ("model.dropout", 1.0),
        ("data.train", ""),
        ("data.validation", ""),
        ("data.max_train_examples", 0),
        ("data.validation_share", 0.0),
        ("data.validation_share", 1.0),
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
        ("cluster.num_workers", (0, 2)),
        ("cluster.num_workers", (3, 2)),
        ("cluster.elastic_interval_s", 0.0),
        ("cluster.max_failures", -2),
        ("checkpoint.every_steps", 0),
        ("checkpoint.every_minutes", 0.0),
        ("checkpoint.keep", 0),
        ("tracking.system_metrics_every_s", 0.0),
        ("run.storage_path", ""),
        ("run.name", ""),
        ("run.name", "."),
        ("run.name", ".."),
        *(("run.name", f"a{sign}b") for sign in "/\\:?#"),
    ],
)
def test_impossible_value_is_refused_by_name(field: str, value: object) -> None:
    section, name = field.split(".")
    with pytest.raises(ConfigError) as error:
        SECTIONS[section](**{name: value})
    assert field in str(error.value)
    assert (repr(value) if field == "run.name" else str(value)) in str(error.value)


@pytest.mark.parametrize("field", ["data.train", "data.validation", "run.storage_path", "tracking.uri"])
@pytest.mark.parametrize("location", ["s3://me:open-sesame@bucket/x", "s3://bucket/x?secret_key=open-sesame"])
def test_secret_in_a_location_is_refused_and_not_shown(field: str, location: str) -> None:
    section, name = field.split(".")
    with pytest.raises(ConfigError) as error:
        SECTIONS[section](**{name: location})
    assert str(error.value).startswith(f"{field} holds a password or a key")
    assert "open-sesame" not in str(error.value)


@pytest.mark.parametrize(
    ("number", "expected"), [(None, None), (3, (3, 3)), ((1, 4), (1, 4))], ids=["none", "a number", "a range"]
)
def test_number_of_workers_is_a_range(number: int | tuple[int, int] | None, expected: tuple[int, int] | None) -> None:
    assert operation.ClusterConfig(num_workers=number).worker_range == expected


def test_checkpoints_need_no_interval_and_failures_no_limit() -> None:
    assert operation.CheckpointConfig(every_steps=None, every_minutes=None, keep=1).keep == 1
    assert operation.ClusterConfig(max_failures=-1).max_failures == -1
    assert operation.ClusterConfig(max_failures=0).max_failures == 0


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

    trees = [ast.parse(Path(module.__file__).read_text(encoding="utf-8")) for module in (config, operation)]
    nodes = [node for tree in trees for node in tree.body]
    for section in (node for node in nodes if isinstance(node, ast.ClassDef) and node.name != "Config"):
        for place, node in enumerate(section.body):
            if isinstance(node, ast.AnnAssign):
                after = section.body[place + 1]
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{section.name}.{ast.unparse(node.target)}"
