"""A sweep on Ray Tune: its searcher and its callbacks are the conductor's, its scheduler is Ray's ASHA."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, TuneConfig
from ray.tune import RunConfig as TuneRunConfig
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from qa_ray.errors import UserError
from qa_ray.runs.resources import Resources
from qa_ray.tuning.conductor import Conductor
from qa_ray.tuning.groups import GroupCleaner
from qa_ray.tuning.history import Goal, History, Status
from qa_ray.tuning.options import SchedulerKind
from qa_ray.tuning.options import TuneConfig as Options
from qa_ray.tuning.trial import END, EPOCH, EVALUATIONS, FIRST_STEP, REASON, Shared, TrialRun

logger = logging.getLogger(__name__)

# The sweep's own lines say it all; and its own folder holds all that it goes on from.
_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_LEAST = 0.001
"""Share of a node's own resource that keeps a trial's process there."""


def run_trials(conductor: Conductor, shared: Shared, options: Options, at_once: int) -> None:
    """Run all trials that the conductor gives out; returns when there are no more, or the desk says stop."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It lists the trials that failed, each of which has been told.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    scheduler = make_scheduler(options, shared.goal, shared.config.train.epochs)
    replay(scheduler, conductor.history, shared.goal)
    scratch = tempfile.mkdtemp(prefix="qa_ray-tune-")
    try:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(TrialRun, shared=shared), _beside_the_sweep()),
            tune_config=TuneConfig(
                search_alg=_Searcher(conductor, shared.desk),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=at_once,
                reuse_actors=True,
                # Its own names hold the values, which may be paths.
                trial_dirname_creator=_trial_id,
            ),
            run_config=TuneRunConfig(
                name="sweep",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=options.max_failures),
                # The runs make their own.
                checkpoint_config=CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[_Chronicle(conductor, options)],
                verbose=0,
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def trials_at_once(options: Options, resources: Resources, nodes: list[Mapping[str, float]]) -> int:
    """How many trials have all their workers at the same time, given each node's resources; at least one."""
    needs = {"CPU": resources.cpus_per_worker, **({"GPU": 1} if resources.use_gpu else {})}
    room = sum(min(int(node.get(name, 0) // amount) for name, amount in needs.items()) for node in nodes)
    fitting = max(room // resources.max_workers, 1)
    return fitting if options.max_concurrent is None else min(fitting, options.max_concurrent)


def make_scheduler(options: Options, goal: Goal, epochs: int) -> TrialScheduler:
    """The scheduler that `options` ask for."""
    if options.scheduler is SchedulerKind.NONE:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=goal.metric,
        mode=goal.mode,
        max_t=max(epochs, options.grace),
        grace_period=options.grace,
        reduction_factor=options.reduction,
    )


def replay(scheduler: TrialScheduler, history: History, goal: Goal) -> None:
    """Let a scheduler know what trials that ended before this process have scored at its rungs."""
    for record in history:
        if record.status.ended and record.evaluations:
            trial = SimpleNamespace(trial_id=record.name)
            scheduler.on_trial_add(None, trial)
            for epoch, metrics in sorted(record.evaluations.items()):
                scheduler.on_trial_result(None, trial, {EPOCH: epoch, goal.metric: metrics[goal.metric]})


def _beside_the_sweep() -> dict[str, float]:
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    return {"CPU": 0, f"node:{node['NodeManagerAddress']}": _LEAST}


class _Searcher(Searcher):  # type: ignore[misc]
    """Hands the conductor's trials to Tune."""

    def __init__(self, conductor: Conductor, desk: Any) -> None:
        super().__init__()
        self._conductor = conductor
        self._desk = desk

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial."""
        record = None if ray.get(self._desk.stop_requested.remote()) else self._conductor.next_trial()
        if record is None:
            return str(Searcher.FINISHED)
        return {"number": record.number, "parameters": record.parameters}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the callbacks know more."""

    def save(self, checkpoint_path: str) -> None:
        """Leave an empty file: the sweep's folder holds all trials."""
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Chronicle(Callback):  # type: ignore[misc]
    """Tells the conductor what becomes of trials."""

    def __init__(self, conductor: Conductor, options: Options) -> None:
        self._conductor = conductor
        self._options = options
        self._cleaner = GroupCleaner()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune has looked at all trials."""
        self._cleaner.look()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has a process."""
        self._conductor.begun(_number(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has been evaluated."""
        if EVALUATIONS in result:
            evaluations = {int(epoch): metrics for epoch, metrics in json.loads(result[EVALUATIONS]).items()}
            self._conductor.evaluated(_number(trial), evaluations, result[FIRST_STEP])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended: by itself, by the scheduler, or because the sweep was interrupted."""
        end, epoch = trial.last_result.get(END), trial.last_result.get(EPOCH)
        if end == "finished":
            self._conductor.ended(_number(trial), Status.FINISHED)
        elif end == "failed":
            self._conductor.ended(_number(trial), Status.FAILED, trial.last_result[REASON])
        elif end is None and epoch is not None:
            reason = f"after epoch {epoch}, not in the best 1/{self._options.reduction} that came as far"
            self._conductor.ended(_number(trial), Status.STOPPED, reason)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed, and is tried again."""
        self._cleaner.process_lost()
        self._conductor.failed_once(_number(trial), _reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed for good."""
        self._cleaner.process_lost()
        self._conductor.ended(_number(trial), Status.FAILED, _reason(trial))


def _trial_id(trial: Any) -> str:
    return str(trial.trial_id)


def _number(trial: Any) -> int:
    return int(trial.config["number"])


def _reason(trial: Any) -> str:
    """Why a trial failed last, in a line; what nobody expected is logged with its traceback."""
    # Tune's own method reads a copy, which is made some time later.
    place = trial.pickled_error_file
    if place is None:
        return "Ray Tune does not say why"
    error = cloudpickle.loads(Path(place).read_bytes())
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, ray.exceptions.RayActorError):
        return "the trial's process was lost"
    if not isinstance(cause, UserError):
        logger.error("%s", error)
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
