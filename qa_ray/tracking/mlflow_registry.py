"""Models in MLflow: logged so that `mlflow models serve` answers, the best as champion; and the trials of a sweep."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import LoggedModelOutput, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

from qa_ray.errors import StorageError
from qa_ray.tracking.environment import versions
from qa_ray.tracking.mlflow_queue import reason, uploading
from qa_ray.tracking.tracker import LONGEST_TAG, PARENT, Candidate, TrialEntry, cut, shown

logger = logging.getLogger(__name__)

CHAMPION = "champion"
"""Alias of the best version: models:/NAME@champion."""
_PACKAGE = Path(__file__).parents[1]
# What answering imports; qa_ray itself travels with the model.
_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")
_EXAMPLE = {"question": ["Who laid the first stone?"], "context": ["Charles IV. laid the first stone in 1357."]}
_RETRIES = 3


def log_model(client: Any, run_id: str, folder: Path, step: int = 0) -> str:
    """Log the fine-tuned model in `folder`, and return its URI, models:/ID.

    MLflow gets a copy of the folder, the source text of `mlflow_model` and of the package, and no pickle.

    Args:
        client: an MlflowClient.
        run_id: the run that made the model.
        folder: on the local disk, as `save_pretrained` wrote it.
        step: optimizer step at which it was saved.

    Raises:
        StorageError: MLflow does not take it.
    """
    with _guard("logged"), tempfile.TemporaryDirectory(prefix="qa_ray-") as place:
        experiment = client.get_run(run_id).info.experiment_id
        model_id = client.create_logged_model(experiment, "qa_ray", run_id, model_type="question-answering").model_id
        try:
            _save(Path(place) / "model", folder, run_id, model_id)
            client.log_model_artifacts(model_id, f"{place}/model")
        except BaseException:
            with contextlib.suppress(Exception):
                client.finalize_logged_model(model_id, "FAILED")
            raise
        client.finalize_logged_model(model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    return f"models:/{model_id}"


def register(client: Any, name: str, candidate: Candidate) -> str:
    """Make a logged model the next version of the registered model `name`; returns what it was compared with.

    The alias `champion` moves to it if there is none, or if it scores more than the champion on the same data.

    Raises:
        StorageError: MLflow cannot be reached.
    """
    with _guard("registered"):
        _make_name(client, name)
        tags = {"metric": candidate.metric, "score": repr(candidate.score), "data": candidate.data}
        model_id = candidate.uri.removeprefix("models:/")
        # A local registry would look for models:/ID at the tracking URI of the process, not at the client's.
        model = client.get_logged_model(model_id)
        version = client.create_model_version(
            name, model.artifact_location, model.source_run_id, tags=tags, model_id=model_id
        ).version
        champion = _champion(client, name)
        better, why = _compare(candidate, champion)
        if better:
            client.set_registered_model_alias(name, CHAMPION, version)
    if champion is None or better:
        return f"{name} version {version} is the champion: {why}"
    return f"{name} version {version} is registered, version {champion.version} stays the champion: {why}"


def _compare(candidate: Candidate, champion: Any | None) -> tuple[bool, str]:
    """Whether the candidate takes the champion's place, and why."""
    if champion is None:
        return True, "there was none"
    known = champion.tags
    if (known.get("data"), known.get("metric")) != (candidate.data, candidate.metric):
        return False, (
            f"the two cannot be compared, they were measured by {candidate.metric} on the data {candidate.data} and by "
            f"{known.get('metric')} on {known.get('data')}"
        )
    before = float(known["score"])
    sign = ">" if candidate.score > before else "<" if candidate.score < before else "="
    return sign == ">", (
        f"{candidate.metric} {candidate.score:.2f} {sign} {before:.2f} of version {champion.version} on the same data"
    )


def _champion(client: Any, name: str) -> Any | None:
    alias = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if alias is None else client.get_model_version(name, str(alias))


def _make_name(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _save(target: Path, folder: Path, run_id: str, model_id: str) -> None:
    """Write the model as MLflow keeps it."""
    outputs = {"answer": "string", "score": "double", "start": "long", "end": "long"}
    mlflow.pyfunc.save_model(
        target,
        # Its source is stored, and run when the model is loaded.
        python_model=str(_PACKAGE / "tracking" / "mlflow_model.py"),
        artifacts={"model": str(folder)},
        code_paths=[str(_PACKAGE)],
        signature=ModelSignature(
            inputs=Schema([ColSpec("string", name) for name in _EXAMPLE]),
            outputs=Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
        ),
        input_example=pd.DataFrame(_EXAMPLE),
        # Given, or MLflow would load the model in another process to see what it imports. A build's own mark (+cpu)
        # is not on PyPI.
        pip_requirements=[f"{name}=={version.partition('+')[0]}" for name, version in versions(_REQUIREMENTS).items()],
        mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
    )


@contextlib.contextmanager
def _guard(what: str) -> Iterator[None]:
    """Take the time that large files need, and turn what MLflow raises into a StorageError of one line."""
    try:
        with uploading(retries=_RETRIES):
            yield
    # MLflow lets through whatever its many stores raise.
    except Exception as error:
        raise StorageError(f"the model cannot be {what} in MLflow: {reason(error)}") from error


BEST = "sweep.best"
_MOST = 50_000
"""Runs that MLflow finds at once."""


def mark_trials(client: Any, parent: str, entries: Sequence[TrialEntry]) -> None:
    """Mark the best trial and no other, tag all, and give those that never ran a run of their own.

    Args:
        client: an MlflowClient.
        parent: the sweep's MLflow run.
        entries: all trials that have ended.

    Raises:
        StorageError: the server cannot be reached.
    """
    # MLflow's stores let through whatever their databases raise.
    try:
        experiment = client.get_run(parent).info.experiment_id
        trials = f"tags.`{PARENT}` = '{parent}'"
        children = client.search_runs([experiment], trials, max_results=_MOST, order_by=["attributes.start_time ASC"])
        # The newest run of each trial.
        known = {run.info.run_name: run for run in children}
        for entry in entries:
            run = known.get(entry.name) or _create(client, experiment, parent, entry)
            tags = {name: cut(text, LONGEST_TAG) for name, text in entry.tags.items()}
            if entry.best:
                tags[BEST] = "true"
                _tag(client, parent, {"sweep.best_trial": entry.name, "sweep.best_run_id": run.info.run_id})
            elif BEST in run.data.tags:
                client.delete_tag(run.info.run_id, BEST)
            _tag(client, run.info.run_id, tags)
    except Exception as error:
        raise StorageError(f"the sweep's trials cannot be marked in MLflow: {reason(error)}") from error


def _tag(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])


def _create(client: Any, experiment: str, parent: str, entry: TrialEntry) -> Any:
    """A run for a trial that was pruned, or failed before it had one."""
    run = client.create_run(experiment, run_name=entry.name, tags={PARENT: parent})
    client.log_batch(run.info.run_id, params=[Param(name, shown(name, value)) for name, value in entry.params.items()])
    client.set_terminated(run.info.run_id, entry.status.value)
    return run
