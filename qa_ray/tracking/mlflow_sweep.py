"""A sweep's trials in MLflow: what became of each, and which is the best, as tags of their runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Param, RunTag

from qa_ray.errors import StorageError
from qa_ray.tracking.mlflow_queue import reason
from qa_ray.tracking.tracker import LONGEST_TAG, PARENT, TrialEntry, cut, shown

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
