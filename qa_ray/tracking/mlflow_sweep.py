"""A sweep's trials in MLflow: what became of each, and which is the best, as tags of their runs."""

from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient

from qa_ray.config.operation import TrackingConfig
from qa_ray.errors import StorageError
from qa_ray.tracking.mlflow_outbox import reason
from qa_ray.tracking.records import LONGEST_TAG, PARENT, TrialEntry, cut, shown

BEST = "sweep.best"


def settle(config: TrackingConfig, parent: str, entries: Sequence[TrialEntry]) -> None:
    """Mark the best trial and no other, tag all, and give those that never ran a run of their own.

    Args:
        config: where the record is.
        parent: the sweep's MLflow run.
        entries: all trials that have ended.

    Raises:
        StorageError: the server cannot be reached.
    """
    # MLflow's stores let through whatever their databases raise.
    try:
        client = MlflowClient(tracking_uri=config.store)
        experiment = client.get_run(parent).info.experiment_id
        known = _children(client, experiment, parent)
        for entry in entries:
            run = known.get(entry.name) or _create(client, experiment, parent, entry)
            for name, text in entry.tags.items():
                client.set_tag(run.info.run_id, name, cut(text, LONGEST_TAG))
            if entry.best:
                client.set_tag(run.info.run_id, BEST, "true")
                client.set_tag(parent, "sweep.best_trial", entry.name)
                client.set_tag(parent, "sweep.best_run_id", run.info.run_id)
            elif BEST in run.data.tags:
                client.delete_tag(run.info.run_id, BEST)
    except Exception as error:
        raise StorageError(f"the sweep's trials cannot be marked in MLflow: {reason(error)}") from error


def _children(client: Any, experiment: str, parent: str) -> dict[str, Any]:
    """The newest run of each trial, by its name."""
    found: dict[str, Any] = {}
    token = None
    while True:
        page = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent}'", page_token=token)
        for run in page:
            earlier = found.get(run.info.run_name)
            if earlier is None or earlier.info.start_time < run.info.start_time:
                found[run.info.run_name] = run
        token = page.token
        if not token:
            return found


def _create(client: Any, experiment: str, parent: str, entry: TrialEntry) -> Any:
    """A run for a trial that was pruned, or failed before it had one."""
    run = client.create_run(experiment, run_name=entry.name, tags={PARENT: parent})
    for name, value in entry.params.items():
        client.log_param(run.info.run_id, name, shown(name, value))
    client.set_terminated(run.info.run_id, entry.status.value)
    return run
