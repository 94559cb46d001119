"""When a group of workers is ended for another size or started again, and that Ray's insides are as they are used."""

import inspect
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError
from ray.train import ControllerError, FailureConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.context import TrainContext
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2._internal.execution.preemption import PreemptionContext
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ResizeDecision
from ray.train.v2.api import data_parallel_trainer

from qa_ray.runs import trainer
from qa_ray.runs.stream import MetricStream
from qa_ray.runs.trainer import REST, LossPolicy, SavingPolicy, Trainer
from qa_ray.training.wishes import Phase

INTERVAL_S = 60.0


class Here:
    """An actor in this process: its methods are called where they are asked for."""

    def __init__(self, actor: object) -> None:
        self.actor = actor
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: (self, name, arguments))


def get(call: tuple[Here, str, tuple[Any, ...]], timeout: float | None = None) -> Any:
    here, name, arguments = call
    if here.lost:
        raise GetTimeoutError
    return getattr(here.actor, name)(*arguments)


class Cluster:
    """The policy in a controller that looks every other second, and workers that start, train and save."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.room = 1
        self.stream = MetricStream()
        self.handle = Here(self.stream)
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(trainer, "time", clock)
        monkeypatch.setattr(trainer.ray, "get", get)
        monkeypatch.setattr(sys.modules[ElasticScalingPolicy.__module__], "time_monotonic", clock.monotonic)
        # What the cluster has room for is told by an actor of Ray.
        monkeypatch.setattr(ElasticScalingPolicy, "_maybe_send_resource_request", lambda policy: None)
        monkeypatch.setattr(
            ElasticScalingPolicy,
            "_get_reserved_resources",
            lambda policy: {str(node): {"CPU": 1.0} for node in range(self.room)},
        )
        self.policy = SavingPolicy(self.config(), self.handle)
        self.workers = 0

    @staticmethod
    def config() -> ScalingConfig:
        return ScalingConfig(
            num_workers=(1, 8), resources_per_worker={"CPU": 1}, elastic_resize_monitor_interval_s=INTERVAL_S
        )

    def start(self, workers: int = 1, *, seconds: float = 10.0) -> None:
        """Start workers, which make their first step after so many seconds."""
        self.workers, self.began_at = workers, self.now
        self.policy.on_controller_start_worker_group(scaling_config=self.policy.scaling_config, num_workers=workers)
        self.until(lambda: self.now >= self.began_at + seconds)
        self.stream.wishes()

    def until(self, holds: Callable[[], bool], *, decision: type = NoopDecision) -> None:
        """Let time pass; nothing is decided meanwhile."""
        while not holds():
            assert isinstance(self.look(), decision)

    def look(self) -> Any:
        self.now += 2.0
        state = SimpleNamespace(start_time=self.began_at, num_workers=self.workers)
        return self.policy.make_decision_for_running_worker_group(state, SimpleNamespace())

    def asked(self) -> bool:
        return self.stream.phase() is Phase.RESIZE_ASKED


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_group_is_resized_once_its_workers_have_saved(cluster: Cluster) -> None:
    cluster.start()
    cluster.room = 3
    cluster.until(cluster.asked)
    cluster.until(lambda: cluster.now > 1000.0)  # an evaluation, and a slow store
    cluster.stream.advance(Phase.RESIZE_ASKED, Phase.RESIZE_SAVED)
    decision = cluster.look()
    assert (type(decision), decision.num_workers) == (ResizeDecision, 3)
    assert cluster.stream.wishes().resize, "the workers made a step after it"
    cluster.start(3)
    assert not cluster.stream.wishes().resize


def test_nodes_that_come_while_the_workers_save_are_taken_too(cluster: Cluster) -> None:
    cluster.start()
    cluster.room = 2
    cluster.until(cluster.asked)
    cluster.room = 5
    cluster.stream.advance(Phase.RESIZE_ASKED, Phase.RESIZE_SAVED)
    assert cluster.look().num_workers == 5


def test_workers_go_on_where_the_node_has_gone_again(cluster: Cluster) -> None:
    cluster.start()
    cluster.room = 2
    cluster.until(cluster.asked)
    cluster.room = 1
    cluster.stream.advance(Phase.RESIZE_ASKED, Phase.RESIZE_SAVED)
    assert isinstance(cluster.look(), NoopDecision)
    assert cluster.stream.phase() is Phase.TRAINING
    cluster.room = 2
    cluster.until(cluster.asked)


def test_workers_that_could_not_save_are_asked_again_after_a_while(cluster: Cluster) -> None:
    cluster.start()
    cluster.room = 2
    cluster.until(cluster.asked)
    cluster.stream.advance(Phase.RESIZE_ASKED, Phase.TRAINING)
    declined_at = cluster.now
    cluster.until(cluster.asked)
    assert cluster.now - declined_at >= INTERVAL_S - 4.0


@pytest.mark.parametrize(("seconds", "sizes"), [(10.0, [1, 2, 3, 4, 5, 6, 7, 8]), (100.0, [1, 8])])
def test_nodes_that_trickle_in_do_not_keep_a_run_from_training(
    cluster: Cluster, seconds: float, sizes: list[int]
) -> None:
    # One a minute.
    come = 0.0
    taken = []
    while cluster.workers < 8:
        cluster.start(cluster.room, seconds=seconds)
        taken.append(cluster.workers)
        begun = cluster.now
        while not cluster.asked() and cluster.workers < 8:
            cluster.look()
            come += 2.0 / 60.0
            cluster.room = min(1 + round(come), 8)
        assert cluster.workers == 8 or cluster.now - begun >= REST * seconds
    assert taken == sizes


def test_group_that_has_made_no_step_is_left_alone(cluster: Cluster) -> None:
    cluster.room = 2
    cluster.start(seconds=3600.0)


def test_lost_group_is_replaced_at_once(cluster: Cluster) -> None:
    cluster.start(2)
    cluster.room = 3
    cluster.until(cluster.asked)
    cluster.room = 1
    decision = cluster.policy.make_decision_for_non_running_worker_group()
    assert decision.num_workers == 1
    cluster.start(1)
    assert cluster.stream.phase() is Phase.TRAINING


def test_stream_that_does_not_answer_costs_a_run_nothing(cluster: Cluster) -> None:
    cluster.start()
    cluster.room, cluster.handle.lost = 2, True
    cluster.until(lambda: cluster.now > 600.0)
    cluster.start()
    cluster.handle.lost = False
    cluster.until(cluster.asked)


def test_work_that_is_not_saved_is_not_ended_for_another_size(cluster: Cluster) -> None:
    cluster.policy = SavingPolicy(cluster.config(), None)
    cluster.start()
    cluster.room = 8
    cluster.until(lambda: cluster.now > 3600.0)


def test_trainer_gives_its_policy_to_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: dict[str, Any] = {}

    def run(trainer: object, **given: Any) -> SimpleNamespace:
        parts.update(given)
        return SimpleNamespace(error=None)

    # Everything but the controller's actor is Ray's own.
    monkeypatch.setattr(data_parallel_trainer.DataParallelTrainer, "_initialize_and_run_controller", run)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(TorchTrainer, "_create_default_callbacks", lambda trainer: [])
    Trainer(lambda: None, scaling_config=Cluster.config(), stream="stream").fit()
    assert isinstance(parts["scaling_policy"], SavingPolicy)
    assert isinstance(parts["failure_policy"], LossPolicy)
    assert set(parts) <= set(inspect.signature(TrainController.__init__).parameters)


@pytest.mark.parametrize("head", [True, False])
def test_trainer_starts_no_process_that_a_run_does_not_need(head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    node = SimpleNamespace(is_head=lambda: head, node_id="n")
    monkeypatch.setattr(ray._private.worker.global_worker, "node", node)
    trainer = Trainer(lambda: None, scaling_config=ScalingConfig(num_workers=1))
    names = [type(callback).__name__ for callback in trainer._create_default_callbacks()]
    assert names[0] == "StartCallback"
    assert "BackendSetupCallback" in names
    assert "DatasetsCallback" not in names
    assert ("PlacementGroupCleanerCallback" in names) is not head, "only a cluster that is joined has a dashboard"


@pytest.mark.parametrize("lost", [ActorDiedError(), ActorUnavailableError("socket closed", None)], ids=["dead", "away"])
def test_worker_that_is_lost_in_the_start_counts_as_one_of_the_losses_that_are_allowed(lost: RayActorError) -> None:
    policy = LossPolicy(FailureConfig(max_failures=2))
    decisions = [policy.make_decision(ControllerError(lost)) for _ in range(3)]
    assert decisions == [FailureDecision.RETRY, FailureDecision.RETRY, FailureDecision.RAISE]


def test_other_errors_of_the_controller_are_not_tried_again() -> None:
    policy = LossPolicy(FailureConfig(max_failures=2))
    assert policy.make_decision(ControllerError(ValueError("no"))) is FailureDecision.RAISE
    assert policy.make_decision(WorkerGroupError("", {})) is FailureDecision.RETRY


def test_ray_has_what_is_used_of_its_insides() -> None:
    step = inspect.getsource(TrainController._step)
    assert "make_decision_for_running_worker_group(" in step
    assert "make_decision_for_non_running_worker_group(" in inspect.getsource(TrainController)
    assert "on_controller_start_worker_group(" in inspect.getsource(TrainController._start_worker_group)
    assert "preemption_context" in TrainContext.__dataclass_fields__
    assert PreemptionContext().preemption_info is None
    fan_out = inspect.getsource(sys.modules[PreemptionContext.__module__])
    assert "for rank, actor in self._worker_actors_by_rank.items():" in fan_out, "are all workers told the same?"
