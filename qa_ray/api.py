"""The jobs, to be called from Python: in a notebook, a script or a service of your own.

    from qa_ray import evaluate, predict, recipes, train, tune

    result = train("sample", train={"epochs": 1})
    result.scores["f1"], result.report, result.answerer()(question="Who wrote it?", context="Ada wrote it.")

Each starts a local Ray, or joins the cluster that is named, unless this process is connected to one already; it stays
connected, so that the next call starts faster. Mistakes raise a `qa_ray.errors.UserError` that says what to do.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import ray

from qa_ray.config.files import build, new_name, open_recipe, override
from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import ClusterConfig
from qa_ray.data.memory import Questions, stored
from qa_ray.errors import require
from qa_ray.evaluation.job import evaluate as run_evaluation
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.evaluation.report import EvaluationResult
from qa_ray.logs import silence
from qa_ray.prediction.job import predict as run_prediction
from qa_ray.prediction.options import PredictionOptions
from qa_ray.prediction.result import PredictionResult
from qa_ray.publishing.best_publisher import BestPublisher
from qa_ray.publishing.publish import publish, run_at, warn_without_token
from qa_ray.runs.connection import start_ray
from qa_ray.runs.driver import RunContext
from qa_ray.runs.driver import train as run_training
from qa_ray.runs.resume import TrainResult
from qa_ray.tuning.driver import search
from qa_ray.tuning.options import as_sweep
from qa_ray.tuning.trials import SweepResult

C = TypeVar("C", bound=Config)

Recipe = Config | str | os.PathLike[str]
"""A configuration; or the name of a recipe, a TOML file, or the config.json of a run."""
Model = TrainResult | str | os.PathLike[str]
"""What `train` returned; or the folder of a run or a model, a Hub id, or an MLflow URI."""


def train(
    recipe: Recipe,
    *,
    train_data: Questions | None = None,
    validation_data: Questions | None = None,
    **sections: Mapping[str, Any],
) -> TrainResult:
    """Fine-tune a model; one whose run has a name and was interrupted goes on, one that is finished is only shown.

    Args:
        recipe: where the configuration starts, such as "minilm", recipes.minilm() or "my.toml".
        train_data: questions that are learnt, if they are others than the recipe's.
        validation_data: questions that the model is measured by.
        sections: fields that differ, by section: optim={"learning_rate": 1e-4}, run={"name": "first"}.

    Raises:
        UserError: something that you can mend; the message says how.
        StoppedError: a signal stopped the run after a checkpoint.
    """
    config = _configure(recipe, train_data, validation_data, sections, lambda config: config)
    _connect(config.cluster)
    if config.publish.repo_id is not None:
        warn_without_token()
    result = run_training(config, RunContext(callback=BestPublisher))
    _publish(result, config)
    return result


def tune(
    recipe: Recipe,
    *,
    space: Mapping[str, object] | None = None,
    train_data: Questions | None = None,
    validation_data: Questions | None = None,
    **sections: Mapping[str, Any],
) -> SweepResult:
    """Search fields of a configuration; a sweep that has a name and was interrupted goes on.

    Args:
        recipe: the configuration that is varied, as in `train`.
        space: fields and where they are searched: {"optim.learning_rate": "loguniform(1e-5, 5e-4)", "window.stride":
            [32, 64, 128]}; without it, the learning rate around the recipe's own, and the stride.
        train_data: questions that are learnt, if they are others than the recipe's.
        validation_data: questions that trials are measured by.
        sections: fields that differ, by section, such as tune={"num_trials": 20}.

    Raises:
        UserError: something that you can mend; the message says how.
        StoppedError: a signal stopped the sweep; its trials have saved.
    """
    given: dict[str, Any] = dict(sections)
    if space is not None:
        given["space"] = [f"{field}={_domain(values)}" for field, values in space.items()]
    config = _configure(recipe, train_data, validation_data, given, as_sweep)
    _connect(config.cluster)
    result = search(config)
    _publish(result.best, config)
    return result


def evaluate(model: Model | None, data: Questions, *, out: str = "evaluation", **options: Any) -> EvaluationResult:
    """Measure a model on questions with answers.

    Args:
        model: see `Model`; None with predictions="answers.json", a file of answers that are there already.
        data: the questions.
        out: folder that takes predictions, scores and the report.
        options: fields of `EvaluationOptions`, such as against="runs/other".

    Raises:
        UserError: something that you can mend; the message says how.
    """
    given = {**options, "model": None if model is None else _location(model), "data": stored(data, out), "out": out}
    if "against" in options:
        given["against"] = _location(options["against"])
    asked = build(EvaluationOptions, given, "evaluate")
    if asked.needs_cluster:
        _connect(asked.cluster)
    return run_evaluation(asked)


def predict(model: Model, data: Questions, *, out: str = "predictions", **options: Any) -> PredictionResult:
    """Answer questions; the same call goes on where it was interrupted.

    Args:
        model: see `Model`.
        data: questions and contexts; answers and ids are not needed.
        out: folder or URI that takes the answers.
        options: fields of `PredictionOptions`, such as top_k=3.

    Raises:
        UserError: something that you can mend; the message says how.
    """
    asked = build(
        PredictionOptions, {**options, "model": _location(model), "data": stored(data, out), "out": out}, "predict"
    )
    _connect(asked.cluster)
    return run_prediction(asked)


def _configure(
    recipe: Recipe,
    train_data: Questions | None,
    validation_data: Questions | None,
    sections: Mapping[str, Any],
    extend: Callable[[Config], C],
) -> C:
    name = "run"
    if isinstance(recipe, Config):
        config = recipe if isinstance(recipe, type(extend(Config()))) else extend(recipe)
    else:
        config, name = open_recipe(os.fspath(recipe), extend)
    config = override(config, sections, "arguments")
    given = {"train": train_data, "validation": validation_data}
    others = {split: data for split, data in given.items() if data is not None}
    require(
        validation_data is None or config.data.validation_share is None,
        "give validation_data or data.validation_share, not both",
    )
    needed = {config.data.field_of(split) for split in given}
    require(
        config.data.hub is None or not others or others.keys() == needed,
        f"the recipe's data come from the Hub ({config.data.hub}): give both train_data and validation_data, or none",
    )
    named = {split: stored(data, config.run.storage_path) for split, data in others.items()}
    changes: dict[str, Any] = {"data": {**named, "hub": None}} if named else {}
    if config.run.name is None:
        changes["run"] = {"name": new_name(name)}
    return override(config, changes, "arguments")


def _connect(cluster: ClusterConfig) -> None:
    if not ray.is_initialized():
        silence()
        start_ray(cluster)


def _publish(result: TrainResult, config: Config) -> None:
    if config.publish.repo_id is not None:
        publish(run_at(result.folder), config.publish, trust_remote_code=config.model.trust_remote_code)


def _location(model: Model) -> str:
    return model.folder if isinstance(model, TrainResult) else os.fspath(model)


def _domain(values: object) -> str:
    return f"choice({', '.join(map(str, values))})" if isinstance(values, list | tuple) else str(values)
