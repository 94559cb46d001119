"""A sweep on Ray Tune: its trials are the study's, its scheduler is Ray's ASHA."""

import json
import logging
import math
import operator
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.tune import Callback
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher
from ray.util.placement_group import PlacementGroup, remove_placement_group

from qa_ray.errors import UserError
from qa_ray.runs.resources import Resources
from qa_ray.tracking.metrics import EPOCH
from qa_ray.tuning.options import SchedulerKind, TuneConfig
from qa_ray.tuning.study import Feasibility, Study
from qa_ray.tuning.trial import END, EVALUATIONS, FIRST_STEP, REASON, Shared, TrialRun
from qa_ray.tuning.trials import Objective, Status, TrialRecord

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


def run_trials(
    study: Study,
    shared: Shared,
    why_infeasible: Feasibility,
    at_once: int,
    *,
    repeats: bool = False,
) -> None:
    """Run all trials that the study gives out; returns when there are no more, or the sweep is to stop.

    Args:
        study: gives trials out, and takes what becomes of them.
        shared: what all of them have in common.
        why_infeasible: tells of points that cannot run.
        at_once: most trials at the same time.
        repeats: runs repeats of the best trials, each of them to its end, in place of trials that are searched.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It lists the trials that failed, each of which has been told.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    # Tune would put them into the environment that Ray notes of each trial and writes into its log; they are lent.
    ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")])
    sweep = study.sweep
    scheduler: TrialScheduler = FIFOScheduler()
    if not repeats:
        scheduler = make_scheduler(sweep.config.tune, sweep.objective, sweep.config.train.epochs)
        replay(scheduler, sweep.searched, sweep.objective)
    with tempfile.TemporaryDirectory(prefix="qa_ray-tune-", ignore_cleanup_errors=True) as scratch:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(TrialRun, shared=shared), _beside_the_sweep()),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(partial(study.next_trial, why_infeasible, repeats=repeats), shared.stream),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=at_once,
                reuse_actors=True,
                # Its own names hold the values, which may be paths.
                trial_dirname_creator=operator.attrgetter("trial_id"),
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=study.config.tune.max_failures),
                # The runs make their own.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[_StudyCallback(study)],
                verbose=0,
            ),
        ).fit()


def trials_at_once(options: TuneConfig, resources: Resources, nodes: list[Mapping[str, float]]) -> int:
    """How many trials have all their workers at the same time, given each node's resources; at least one."""
    needs = {"CPU": resources.cpus_per_worker, **({"GPU": 1} if resources.use_gpu else {})}
    room = sum(min(int(node.get(name, 0) // amount) for name, amount in needs.items()) for node in nodes)
    fitting = max(room // resources.max_workers, 1)
    return fitting if options.max_concurrent is None else min(fitting, options.max_concurrent)


def make_scheduler(options: TuneConfig, objective: Objective, epochs: int) -> TrialScheduler:
    """The scheduler that `options` ask for."""
    if options.scheduler is SchedulerKind.NONE:
        return FIFOScheduler()
    common = {
        "time_attr": EPOCH,
        "metric": objective.metric,
        "mode": "max" if objective.by.sign > 0 else "min",
        "grace_period": options.grace,
    }
    if options.scheduler is SchedulerKind.MEDIAN:
        # Trials never make way for others.
        return _MedianStoppingRule(**common, min_time_slice=math.inf)
    return ASHAScheduler(**common, max_t=epochs, reduction_factor=options.reduction)


class _MedianStoppingRule(MedianStoppingRule):  # type: ignore[misc]
    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take the last score, which a trial that has failed has not."""
        if self._metric in result:
            super().on_trial_complete(tune_controller, trial, result)


@dataclass(frozen=True)
class _Replayed:
    """A trial of an earlier process, as far as a scheduler knows trials."""

    trial_id: str


def replay(scheduler: TrialScheduler, trials: Iterable[TrialRecord], objective: Objective) -> None:
    """Let a scheduler know what trials that ended before this process have scored at its rungs."""
    for record in trials:
        if record.status.ended and record.evaluations:
            trial = _Replayed(record.name)
            scheduler.on_trial_add(None, trial)
            for epoch, score in sorted(record.scores(objective).items()):
                scheduler.on_trial_result(None, trial, {EPOCH: epoch, objective.metric: score})


def _beside_the_sweep() -> dict[str, float]:
    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    return {"CPU": 0, f"node:{node['NodeManagerAddress']}": _LEAST}


def release_lost_reservations() -> None:
    """Give back the CPUs and GPUs of this job that were reserved by actors which are dead, as those of a lost trial.

    Ray keeps a placement group until its creator and its whole job are dead, and Ray Train's own watcher asks Ray's
    dashboard, which a local cluster lacks.
    """
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id()).binary()
    # Ray's public table leaves out who made a group.
    table = ray._private.state.state._connect_and_get_accessor().get_placement_group_table()
    for group in map(PlacementGroupTableData.FromString, table):
        # What the driver itself made, as Tune does, has no actor, which counts as dead.
        made_by_actor = not ray.ActorID(group.creator_actor_id).is_nil()
        lost = made_by_actor and group.creator_actor_dead and group.state != PlacementGroupTableData.REMOVED
        if lost and group.creator_job_id == job:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))


class _Searcher(Searcher):  # type: ignore[misc]
    """Hands the study's trials to Tune."""

    def __init__(self, next_trial: Callable[[], TrialRecord | None], stream: Any) -> None:
        super().__init__()
        self._next_trial, self._stream = next_trial, stream

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial."""
        stopped = ray.get(self._stream.stop_requested.remote())
        record = None if stopped else self._next_trial()
        if record is None:
            return str(Searcher.FINISHED)
        return {"number": record.number, "parameters": record.parameters}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the callback knows more."""


class _StudyCallback(Callback):  # type: ignore[misc]
    """Tells the study what becomes of trials."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune has looked at all trials."""
        release_lost_reservations()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has a process."""
        self._study.begun(_number(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has been evaluated."""
        if EVALUATIONS in result:
            evaluations = {float(epoch): metrics for epoch, metrics in json.loads(result[EVALUATIONS]).items()}
            self._study.evaluated(_number(trial), evaluations, result[FIRST_STEP])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended: by itself, by the scheduler, or because the sweep was interrupted."""
        status, reason = ending(trial.last_result, self._study.config.tune)
        if status.ended:
            self._study.ended(_number(trial), status, reason)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed, and is tried again."""
        self._study.failed_once(_number(trial), _reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed for good."""
        self._study.ended(_number(trial), Status.FAILED, _reason(trial))


def ending(result: Mapping[str, Any], options: TuneConfig) -> tuple[Status, str | None]:
    """What became of a trial whose last report is `result`, and why; a run that says nothing of its end was stopped."""
    if END in result:
        return Status(result[END]), result.get(REASON)
    why = f"not in the best 1/{options.reduction} that came as far"
    if options.scheduler is SchedulerKind.MEDIAN:
        why = "below the median of what others scored on average so far"
    return Status.STOPPED, f"after epoch {result[EPOCH]:g}, {why}"


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
