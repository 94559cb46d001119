"""The training job on the driver: prepare, train on the cluster, and leave a run folder."""

import contextlib
import dataclasses
import json
import logging
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ray.train import FailureConfig, LoggingConfig, Result, ScalingConfig, TrainingFailedError
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchConfig

from qa_ray.config.fields import flatten
from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import ClusterConfig
from qa_ray.errors import StoppedError, StorageError, WorkerLostError
from qa_ray.runs.conclusion import conclude, is_wanting, keep_model
from qa_ray.runs.failures import EndOnError, cause_of
from qa_ray.runs.outcome import Outcome
from qa_ray.runs.preparation import Prepared, Splits, data_uses, prepare, tags
from qa_ray.runs.resources import Resources, plan_resources
from qa_ray.runs.resume import ExistingRun, TrainResult, find_run
from qa_ray.runs.signals import Interruptible
from qa_ray.runs.stream import Fetcher, Follower, Observer
from qa_ray.runs.trainer import Trainer
from qa_ray.runs.warm_workers import WarmWorkers
from qa_ray.runs.worker import train_worker
from qa_ray.storage.ownership import create, join, withdraw
from qa_ray.storage.run_folder import CONFIG, METRICS, OWNER, RunFolder
from qa_ray.tracking.hardware import EnvironmentRecord
from qa_ray.tracking.node_metrics import NodeRecord
from qa_ray.tracking.recording import send_owed, start_tracker
from qa_ray.tracking.tracker import RunStatus, Tracker

logger = logging.getLogger(__name__)

_PATIENCE_VARIABLE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_PATIENCE_S, _ELASTIC_PATIENCE_S = 600, 10

Callback = Callable[[Config, RunFolder, Mapping[int, Mapping[str, float]]], contextlib.AbstractContextManager[object]]
"""Is made of a run and its validation metrics by step, which grow meanwhile; entered while training goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """What a run is given by the job that it is a part of."""

    splits: Splits | None = None
    """Its data, where they are tokenised already."""
    stream: Any = None
    """Actor that takes what rank 0 records; whoever holds it can ask the run to stop."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What its record is found by, besides the run's own."""
    observe: Observer | None = None
    """Sees what rank 0 records."""
    workers: WarmWorkers | None = None
    """Workers that stay for the next run; None lets them end with the run."""
    callback: Callback | None = None
    keeps_model: bool = True
    """Whether MLflow takes the model; a search sees to that of its best trial."""


def train(config: Config, context: RunContext | None = None) -> TrainResult:
    """Fine-tune a model on the Ray cluster that this process is connected to.

    A run that was begun before goes on from its last checkpoint; one that is finished is only shown.

    Raises:
        UserError: something that the user can mend; no training has happened then, or it cannot go on.
        StoppedError: a signal stopped the run after a checkpoint.
    """
    context = context or RunContext()
    resources = plan_resources(config.cluster)
    found = find_run(config)
    if found.finished:
        return _keep_again(config, found.folder, found.finished) if context.keeps_model else found.finished
    prepared, tracker = _begin(config, found, resources, context)
    with _recorded(tracker), patience(resources):
        outcome = _fit(prepared, tracker, context)
        result = conclude(prepared, outcome, tracker)
        return keep_model(result, config, prepared.folder, tracker) if context.keeps_model else result


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


def _begin(config: Config, found: ExistingRun, resources: Resources, context: RunContext) -> tuple[Prepared, Tracker]:
    folder, written = found.folder, json.dumps(dataclasses.asdict(config), indent=1).encode()
    job = uuid.uuid4().hex
    if found.resumed:
        join(folder, job)
    else:
        create(folder, job, {CONFIG: written})
    try:
        prepared = prepare(config, folder, resources, owner=job, splits=context.splits, stream=context.stream)
        if found.resumed:  # a run that may not go on so is left as it was
            folder.write(CONFIG, written)
        splits = prepared.task.train, prepared.task.validation
        tracker = start_tracker(
            config.tracking,
            folder,
            params=dict(flatten(config)),
            tags=tags(config, *splits) | dict(context.tags),
            inputs=data_uses(config, *splits),
        )
        folder.write(OWNER, job.encode())
    except BaseException:
        # Nothing has been trained: the same command must work once the mistake is mended.
        withdraw(folder, job, created=not found.resumed)
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


def _fit(prepared: Prepared, tracker: Tracker, context: RunContext) -> Outcome:
    """Train on the workers while the follower shows and keeps what rank 0 records."""
    config, folder, stream = prepared.config, prepared.folder, prepared.task.stream
    work = partial(train_worker, prepared.task)
    places = {"name": folder.name, "storage_path": folder.storage_path}

    def trainer_of(what: Callable[[], object]) -> Trainer:
        return make_trainer(what, prepared.resources, config.cluster, **places, stream=stream)

    stop = Interruptible(lambda: _ask_to_stop(stream))
    nodes, environment = NodeRecord(folder, tracker), EnvironmentRecord(folder, tracker)
    with contextlib.ExitStack() as stack:
        follower = stack.enter_context(
            Follower(stream, lambda content: folder.write(METRICS, content), tracker, context.observe, environment)
        )
        stack.enter_context(Fetcher(stream.take_samples, nodes))
        if context.callback is not None:
            stack.enter_context(context.callback(config, folder, follower.evaluations))
        try:
            outcome: Outcome = stop.run(lambda: _work(work, trainer_of, prepared.resources, context.workers))
        except TrainingFailedError as error:
            raise cause_of(error, partial(_lost, name=folder.name)) from error
    if outcome.stopped:
        # In a search a trial is stopped without a signal.
        number = stop.received.value if stop.received else 0
        raise StoppedError(
            f"stopped at step {outcome.step} of {outcome.num_steps} after a checkpoint: run the same command with "
            f"--run.name {folder.name} to go on",
            exit_code=128 + number,
        )
    return outcome


def _work(
    work: Callable[[], Outcome],
    trainer_of: Callable[[Callable[[], object]], Trainer],
    resources: Resources,
    warm: WarmWorkers | None,
) -> Outcome:
    # Workers whose number changes are asked through the stream of their own run.
    if warm is not None and not resources.elastic:
        return warm.run(work, trainer_of)
    result: Result = trainer_of(work).fit()
    outcome: Outcome = result.return_value
    return outcome


def _ask_to_stop(stream: object) -> None:
    logger.info("stopping: a checkpoint is written first; once more ends the run without it")
    stream.stop.remote()  # type: ignore[attr-defined]


def make_trainer(
    work: Callable[[], object],
    resources: Resources,
    cluster: ClusterConfig,
    *,
    name: str,
    storage_path: str,
    stream: Any = None,
) -> Trainer:
    """Ray Train's trainer that lets every worker do `work`; Ray keeps its own notes in storage_path/name.

    Arguments of `work` are bound to it: Ray's controller would read a `train_loop_config`, and import torch for it.
    Through `stream` the workers of an elastic run are asked to save before their number changes; without it the number
    does not change while they work.
    """
    workers = (resources.min_workers, resources.max_workers) if resources.elastic else resources.max_workers
    return Trainer(
        work,
        stream=stream,
        torch_config=TorchConfig(timeout_s=math.ceil(cluster.collective_timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=resources.use_gpu,
            resources_per_worker={"CPU": resources.cpus_per_worker, **({"GPU": 1} if resources.use_gpu else {})},
            elastic_resize_monitor_interval_s=cluster.elastic_interval_s,
        ),
        run_config=RayRunConfig(
            name=name,
            storage_path=storage_path,
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            callbacks=[EndOnError()],
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


def _lost(what: str, name: str) -> WorkerLostError:
    return WorkerLostError(
        f"{what}, and cluster.max_failures is reached. Its memory may have run out (lower "
        "batch.max_tokens_per_device), or its node is gone. Run the same command with --run.name "
        f"{name} to go on from the last checkpoint"
    )
