"""Ray Train's trainer with policies of this project: when a group of workers is resized, and when it is started again.

Ray Train ends a group of workers the moment that its policy wants another size; here the workers are asked first, so
that a checkpoint is stored and no step is made twice. And it gives up where a worker is lost just as it is told to
begin; here another group is started, as after any other loss.
All that this project takes from inside of Ray Train stands in this module, as it was in Ray 2.60: the base classes of
the policies, where a trainer makes its policies and callbacks, what a worker knows of a preemption, and who started the
cluster.
"""

import contextlib
import time
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.train import ControllerError, Result, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus, WorkerGroupState
from ray.train.v2.api.config import ScalingConfig

from qa_ray.training.wishes import Phase

REST = 4.0
"""A group trains this many times as long as its start took before it is ended for another size."""
_SECONDS_FOR_AN_ANSWER = 5.0


def preemption_known() -> object | None:
    """Which nodes are about to be taken away, as Ray told this worker; it tells all workers the same.

    `ray.train.get_preemption_info` gives what rank 0 was told, and has every rank wait for that at one actor.
    """
    known: object | None = get_train_context().preemption_context.preemption_info
    return known


class SavingPolicy(ElasticScalingPolicy):  # type: ignore[misc]
    """Resizes a running group once its workers have stored a checkpoint and make no further step.

    A group that is lost is replaced at once, as ever. Nodes that come one after the other are taken together: a group
    is not resized before it has made a step and trained `REST` times as long as it took to start.
    """

    def __init__(self, scaling_config: ScalingConfig, stream: Any) -> None:
        """Ask the workers through the actor `stream`; None never resizes a group that runs, whose work is not saved."""
        super().__init__(scaling_config)
        self._stream = stream
        self._began_at = time.monotonic()
        self._rests_until: float | None = None
        self._asked = False

    def on_controller_start_worker_group(self, **group: Any) -> dict[str, str] | None:
        """Ray is about to start a group; the one before it is gone."""
        self._began_at, self._rests_until, self._asked = time.monotonic(), None, False
        if self._stream is not None:
            with contextlib.suppress(RayError):  # no run fails for it
                self._call("start_group")
        selector: dict[str, str] | None = super().on_controller_start_worker_group(**group)
        return selector

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """Ray asks it every few seconds."""
        # Also keeps up the request for as many nodes as there may be, and paces the looks at what is there.
        base = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        if self._stream is None:
            return NoopDecision()
        try:
            return self._decide(wanted=isinstance(base, ResizeDecision), workers=worker_group_state.num_workers)
        except RayError:  # the stream is being started again
            return NoopDecision()

    def _decide(self, *, wanted: bool, workers: int) -> ScalingDecision:
        if self._rests_until is None:
            self._look_for_first_step()
        elif self._asked:
            return self._resize(workers)
        elif wanted and time.monotonic() >= self._rests_until:
            self._call("advance", Phase.TRAINING, Phase.RESIZE_ASKED)
            self._asked = True
        return NoopDecision()

    def _look_for_first_step(self) -> None:
        if self._call("phase") is not Phase.STARTING:
            now = time.monotonic()
            self._rests_until = now + REST * (now - self._began_at)

    def _resize(self, workers: int) -> ScalingDecision:
        """The size that fits by now, once the workers have saved; nothing if it is theirs, or if they go on."""
        phase = self._call("phase")
        if phase is Phase.RESIZE_ASKED:
            return NoopDecision()
        self._asked = False
        if phase is not Phase.RESIZE_SAVED:
            return NoopDecision()  # they could not save, or waited for too long
        decision = self.make_decision_for_non_running_worker_group()
        if isinstance(decision, ResizeDecision) and decision.num_workers != workers:
            return decision
        self._call("advance", Phase.RESIZE_SAVED, Phase.TRAINING)
        return NoopDecision()

    def _call(self, method: str, *arguments: Phase) -> Any:
        return ray.get(getattr(self._stream, method).remote(*arguments), timeout=_SECONDS_FOR_AN_ANSWER)


class LossPolicy(DefaultFailurePolicy):  # type: ignore[misc]
    """Takes a worker that is lost while its group is started for what it is: one of the losses that are allowed."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Ray asks it after each failure."""
        if isinstance(training_failed_error, ControllerError):
            failure = training_failed_error.controller_failure
            if isinstance(failure, RayActorError):
                training_failed_error = WorkerGroupError(str(failure), {})
        return super().make_decision(training_failed_error)


class StartCallback(WorkerGroupCallback, ControllerCallback):  # type: ignore[misc]
    """Ends a group of workers whose start failed half-way: Ray forgets it then, and it would keep its resources."""

    def __init__(self) -> None:
        """Nothing is being started."""
        self._starting: WorkerGroup | None = None

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """The workers are there."""
        self._starting = worker_group

    def after_worker_group_training_start(self, worker_group: WorkerGroup) -> None:
        """They have begun: from here on Ray sees to their end."""
        self._starting = None

    def before_controller_execute_failure_decision(self, failure_decision: FailureDecision) -> None:
        """Something failed, and Ray is about to start another group or to give up."""
        group, self._starting = self._starting, None
        if group is not None:
            group.shutdown()


class Trainer(TorchTrainer):  # type: ignore[misc]
    """Ray Train's trainer with a `LossPolicy` and, for a number of workers that changes, a `SavingPolicy`."""

    def __init__(self, *arguments: Any, stream: Any = None, **options: Any) -> None:
        """A `TorchTrainer` whose workers are asked through the actor `stream` before their number changes."""
        super().__init__(*arguments, **options)
        self._stream = stream

    def _create_default_callbacks(self) -> list[Any]:
        # Each of the two starts a process beside the workers. The one would hand out Ray Datasets, of which a run has
        # none; the other asks the dashboard whether the controller lives, and a local cluster has none.
        left_out = (DatasetsCallback, PlacementGroupCleanerCallback) if _cluster_is_local() else (DatasetsCallback,)
        own = [callback for callback in super()._create_default_callbacks() if not isinstance(callback, left_out)]
        # Before Ray's own, which may fail in the start.
        return [StartCallback(), *own]

    def _initialize_and_run_controller(self, **parts: Any) -> Result:
        # Ray Train takes no policies from outside.
        parts["failure_policy"] = LossPolicy(self.run_config.failure_config)
        if isinstance(parts["scaling_policy"], ElasticScalingPolicy):
            parts["scaling_policy"] = SavingPolicy(self.scaling_config, self._stream)
        return super()._initialize_and_run_controller(**parts)


def _cluster_is_local() -> bool:
    """Whether this process has started the cluster, which then ends with it."""
    node = ray._private.worker.global_worker.node
    return node is not None and node.is_head()
