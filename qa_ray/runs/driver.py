"""The training job on the driver: prepare, train on the cluster, and leave a run folder."""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ray.exceptions import RayActorError
from ray.train import FailureConfig, LoggingConfig, Result, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchTrainer

from qa_ray.config.fine_tuning import Config, flatten
from qa_ray.config.operation import ClusterConfig
from qa_ray.errors import StoppedError, StorageError, WorkerLostError
from qa_ray.runs.conclusion import conclude, is_wanting, keep_model
from qa_ray.runs.outcome import Outcome, raised
from qa_ray.runs.preparation import Prepared, Splits, data_uses, prepare, tags
from qa_ray.runs.resources import Resources, plan_resources
from qa_ray.runs.resume import ExistingRun, TrainResult, find_run
from qa_ray.runs.signals import Interruptible
from qa_ray.runs.stream import Follower, Observer
from qa_ray.runs.worker import train_worker
from qa_ray.storage.run_folder import CONFIG, ENVIRONMENT, METRICS, OWNER, RunFolder
from qa_ray.tracking.environment import describe_environment
from qa_ray.tracking.node_metrics import NodeRecord
from qa_ray.tracking.tracker import RunStatus, Tracker, send_owed, start_tracker

logger = logging.getLogger(__name__)

_PATIENCE_VARIABLE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_PATIENCE_S, _ELASTIC_PATIENCE_S = 600, 10


Evaluations = Mapping[int, Mapping[str, float]]
"""Validation metrics by step."""
Companion = Callable[[Config, RunFolder, Evaluations], contextlib.AbstractContextManager[object]]
"""What goes on beside training, such as publishing each best model; the evaluations grow meanwhile."""


def _no_companion(
    config: Config, folder: RunFolder, evaluations: Evaluations
) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a run gets from the search that it is a part of."""

    splits: Splits | None = None
    """Its data, tokenised once for all trials."""
    stream: Any = None
    """Actor that takes what rank 0 records; whoever holds it can ask the run to stop."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What its record is found by, besides the run's own."""
    observe: Observer | None = None
    """Sees what rank 0 records."""


def train(config: Config, trial: Trial | None = None, *, companion: Companion = _no_companion) -> TrainResult:
    """Fine-tune a model on the Ray cluster that this process is connected to.

    A run that was begun before goes on from its last checkpoint; one that is finished is only shown.

    Args:
        config: the run.
        trial: given by a search, which sees to the models itself: that of a trial is not logged in MLflow.
        companion: made of the run; entered when training starts and left when it ends.

    Raises:
        UserError: something that the user can mend; no training has happened then, or it cannot go on.
        StoppedError: a signal stopped the run after a checkpoint.
    """
    resources = plan_resources(config.cluster)
    found = find_run(config)
    if found.finished:
        return _keep_again(config, found.folder, found.finished) if trial is None else found.finished
    alone, trial = trial is None, trial or Trial()
    prepared, tracker = _begin(config, found, resources, trial)
    with _recorded(tracker), patience(resources):
        outcome, follower = _fit(prepared, tracker, trial.observe, companion)
        result = conclude(prepared, outcome, follower.evaluations, tracker)
        return keep_model(result, config, prepared.folder, tracker) if alone else result


def _keep_again(config: Config, folder: RunFolder, result: TrainResult) -> TrainResult:
    """Do what could not be done in MLflow when the run was finished."""
    try:
        send_owed(config.tracking, folder, RunStatus.FINISHED)
        if not is_wanting(result, config):
            return result
        tracker = start_tracker(config.tracking, folder)
    except StorageError as error:
        logger.warning("%s", error)
        return result
    with _recorded(tracker):
        return keep_model(result, config, folder, tracker)


def _begin(config: Config, found: ExistingRun, resources: Resources, trial: Trial) -> tuple[Prepared, Tracker]:
    folder = found.folder
    try:
        folder.write(CONFIG, json.dumps(dataclasses.asdict(config), indent=1).encode())
        prepared = prepare(config, folder, resources, splits=trial.splits, stream=trial.stream)
        splits = prepared.task.train, prepared.task.validation
        tracker = start_tracker(
            config.tracking,
            folder,
            params=dict(flatten(config)),
            tags=tags(config, *splits) | dict(trial.tags),
            inputs=data_uses(config, *splits),
        )
        folder.write(ENVIRONMENT, json.dumps(describe_environment(), indent=1).encode())
        folder.write(OWNER, prepared.task.owner.encode())
    except BaseException:
        if not found.resumed:
            # Nothing has been trained: the same command must work once the mistake is mended.
            folder.remove()
        raise
    return prepared, tracker


@contextlib.contextmanager
def _recorded(tracker: Tracker) -> Iterator[None]:
    """Record whether the run succeeded."""
    try:
        yield
    except StoppedError:
        tracker.finish(RunStatus.KILLED)
        raise
    except BaseException:
        tracker.finish(RunStatus.FAILED)
        raise
    tracker.finish(RunStatus.FINISHED)


@contextlib.contextmanager
def patience(resources: Resources) -> Iterator[None]:
    """How long Ray waits for the resources of a group of workers before it looks again how many there are."""
    # An elastic run starts with fewer workers instead: Ray learns only after a while that a node is gone, and would
    # wait for it. Others wait for a node to come back, or to be started.
    seconds = _ELASTIC_PATIENCE_S if resources.elastic else _PATIENCE_S
    before = os.environ.get(_PATIENCE_VARIABLE)
    os.environ.setdefault(_PATIENCE_VARIABLE, str(seconds))
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PATIENCE_VARIABLE]


def _fit(
    prepared: Prepared, tracker: Tracker, observe: Observer | None, companion: Companion
) -> tuple[Outcome, Follower]:
    """Train on the workers while the follower shows and keeps what rank 0 records."""
    folder, stream = prepared.folder, prepared.task.stream
    trainer = _make_trainer(prepared)
    stop = Interruptible(lambda: _ask_to_stop(stream))
    nodes = NodeRecord(folder, tracker)
    with (
        Follower(stream, lambda content: folder.write(METRICS, content), tracker, nodes, observe) as follower,
        companion(prepared.config, folder, follower.evaluations),
    ):
        try:
            result: Result = stop.run(trainer.fit)
        except TrainingFailedError as error:
            raise _cause(error, folder) from error
    outcome: Outcome = raised(result.return_value)
    if outcome.stopped:
        # In a search a trial is stopped without a signal.
        number = stop.received.value if stop.received else 0
        raise StoppedError(
            f"stopped at step {outcome.step} of {outcome.num_steps} after a checkpoint: run the same command with "
            f"--run.name {folder.name} to go on",
            exit_code=128 + number,
        )
    return outcome, follower


def _ask_to_stop(stream: object) -> None:
    logger.info("stopping: a checkpoint is written first; once more ends the run without it")
    stream.stop.remote()  # type: ignore[attr-defined]


def _make_trainer(prepared: Prepared) -> TorchTrainer:
    resources, cluster = prepared.resources, prepared.config.cluster
    return TorchTrainer(
        # Not as `train_loop_config`: the controller would read it, and import torch and transformers before it begins.
        partial(train_worker, prepared.task),
        scaling_config=scaling_config(resources, cluster),
        run_config=RayRunConfig(
            name=prepared.folder.name,
            storage_path=prepared.folder.storage_path,
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


def scaling_config(resources: Resources, cluster: ClusterConfig) -> ScalingConfig:
    """The workers of a run, as Ray Train takes them."""
    return ScalingConfig(
        num_workers=(resources.min_workers, resources.max_workers) if resources.elastic else resources.max_workers,
        use_gpu=resources.use_gpu,
        resources_per_worker={"CPU": resources.cpus_per_worker, **({"GPU": 1} if resources.use_gpu else {})},
        elastic_resize_monitor_interval_s=cluster.elastic_interval_s,
    )


def worker_failures(error: TrainingFailedError) -> list[BaseException]:
    """What went wrong on the workers."""
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else []
    # A worker that died is known by its health check; the others fail in its wake, whatever they were doing.
    return [getattr(one, "health_check_failure", None) or one.__cause__ or one for one in failures]


def _cause(error: TrainingFailedError, folder: RunFolder) -> Exception:
    """The failure that the user can mend, if a worker met one."""
    causes = worker_failures(error)
    for cause in causes:
        if isinstance(cause, RayActorError):
            return WorkerLostError(
                "a worker process was lost, and cluster.max_failures is reached. Its memory may have run out (lower "
                "batch.max_tokens_per_device), or its node is gone. Run the same command with --run.name "
                f"{folder.name} to go on from the last checkpoint"
            )
    for cause in causes:
        if isinstance(cause, OSError):
            return StorageError(f"the run {folder.uri} cannot be written: {cause.strerror or cause}")
    again: Exception = error
    return again
