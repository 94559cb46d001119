"""Shell completion: one parser of all commands, from which tyro makes the script."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal

import tyro

from qa_ray.benchmark.options import BenchmarkOptions
from qa_ray.cli.ask import AskOptions
from qa_ray.config.fine_tuning import Config
from qa_ray.config.recipes import RECIPES
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.inspection.options import InspectionConfig
from qa_ray.prediction.options import PredictionOptions
from qa_ray.publishing.options import RunPublishOptions
from qa_ray.serving.options import ServeOptions
from qa_ray.tuning.options import SweepConfig


def print_completion(shell: str) -> None:
    """Print the script that completes commands, recipes, fields and their choices."""
    run, sweep = _with_recipe(Config), _with_recipe(SweepConfig)
    commands: dict[str, Callable[..., Any]] = {
        "train": run,
        "ask": AskOptions,
        "evaluate": EvaluationOptions,
        "predict": PredictionOptions,
        "serve": ServeOptions,
        "tune": sweep,
        "inspect": _with_recipe(InspectionConfig),
        "doctor": run,
        "publish": RunPublishOptions,
        "benchmark": BenchmarkOptions,
        "schema": dataclasses.make_dataclass("Schema", []),
    }
    with contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="qa-ray",
            args=["--tyro-print-completion", shell],
            config=(tyro.conf.EnumChoicesFromValues,),
        )


def _with_recipe(kind: type[Config]) -> type[Any]:
    """The words of a run: a recipe's name, and the fields of a configuration."""
    recipes: Any = Literal.__getitem__(tuple(RECIPES))
    fields: list[Any] = [
        ("recipe", Annotated[recipes, tyro.conf.Positional]),
        ("dry_run", bool, dataclasses.field(default=False)),
    ]
    return dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), kw_only=True, frozen=True)
