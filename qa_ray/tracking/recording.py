"""The start of a run's record, and what an earlier process still owed it."""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from qa_ray.config.operation import TrackingConfig
from qa_ray.storage.run_folder import EVALUATION, METRICS, TRACKING, RunFolder
from qa_ray.tracking.metrics import metrics_of
from qa_ray.tracking.tracker import DataUse, RunStatus, Tracker

logger = logging.getLogger(__name__)


def start_tracker(
    config: TrackingConfig,
    folder: RunFolder,
    *,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    inputs: Sequence[DataUse] = (),
) -> Tracker:
    """Start the record of a run, go on with that of an earlier process, or take a null one if tracking is off.

    Args:
        config: where it is kept.
        folder: the run's; tracking.json there tells later processes what the record should have.
        params: the flattened configuration.
        tags: what the run is found by, besides versions, hardware and commit: Ray's job, the model, the data.
        inputs: the data sets that the run reads.

    Raises:
        StorageError: the record cannot be started.
    """
    if not config.enabled:
        return Tracker()
    # Here, since MLflow takes seconds to import, and a run that is not recorded needs none of it.
    from qa_ray.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(config, folder, params or {}, tags or {}, inputs)


def send_owed(config: TrackingConfig, folder: RunFolder, status: RunStatus) -> None:
    """Record what the record of a run that has ended still lacks, as far as the run's folder has it.

    Args:
        config: where the record is kept.
        folder: the run's.
        status: how it ended.

    Raises:
        StorageError: the record or the folder cannot be reached.
    """
    if not config.enabled or not json.loads(folder.read(TRACKING) or b"{}").get("owed"):
        return
    logger.info("MLflow lacks something of the run %s, which is sent now", folder.name)
    tracker = start_tracker(config, folder)
    for line in map(json.loads, (folder.read(METRICS) or b"").splitlines()):
        tracker.log_metrics(metrics_of(line), line["step"], line["time"])
    if status is RunStatus.FINISHED:
        tracker.log_folder(partial(folder.local, EVALUATION), EVALUATION)
    tracker.finish(status)
