"""When a run is saved and when it stops: the same on every rank, at any speed of the steps."""

import random
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from qa_ray.config.operation import CheckpointConfig
from qa_ray.training import control
from qa_ray.training.control import Control, Decision

GO_ON = Decision()
SAVE = Decision(save=True)
SAVE_AT_ONCE = Decision(save=True, urgent=True)
SAVE_AND_STOP = Decision(save=True, urgent=True, stop=True)


class World:
    """Ranks that take their steps one after the other, each with a clock of its own."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        config: CheckpointConfig,
        *,
        num_ranks: int = 1,
        stop_requested: Callable[[], bool] = lambda: False,
        preemption: Callable[[], object | None] = lambda: None,
    ) -> None:
        self.now = 1000.0
        self.talks: list[list[int]] = [[] for _ in range(num_ranks)]
        """Steps after which each rank talked."""
        self._rank = self._step = 0
        self._said: Any = None
        monkeypatch.setattr(control, "time", SimpleNamespace(monotonic=self._monotonic))
        monkeypatch.setattr(control, "broadcast_object_list", self._broadcast)
        self.ranks = [
            Control(
                config,
                SimpleNamespace(is_main_process=rank == 0),
                stop_requested=stop_requested if rank == 0 else self._only_main,
                preemption=preemption,
            )
            for rank in range(num_ranks)
        ]

    def step(self, seconds: float) -> Decision:
        """Make a step that takes so long, and return what all ranks decide."""
        self.now += seconds
        self._step += 1
        decisions = []
        for number, rank in enumerate(self.ranks):
            self._rank = number
            decisions.append(rank(self._step))
            if decisions[-1].save:
                rank.saved()
        assert decisions == decisions[:1] * len(decisions)
        return decisions[0]

    def _monotonic(self) -> float:
        return self.now + 777.0 * self._rank

    def _broadcast(self, message: list[Any]) -> None:
        self.talks[self._rank].append(self._step)
        if self._rank == 0:
            self._said = message[0]
        else:
            message[:] = [self._said]

    def _only_main(self) -> bool:
        raise AssertionError("asked on a rank that is not the main process")


@pytest.fixture
def world(monkeypatch):
    return lambda *args, **kwargs: World(monkeypatch, *args, **kwargs)


def test_nothing_is_due_without_steps_and_minutes(world):
    ranks = world(CheckpointConfig(every_minutes=None))
    assert [ranks.step(1000.0) for _ in range(20)] == [GO_ON] * 20


@pytest.mark.parametrize("seconds", [0.001, 10.0])
def test_every_steps_is_counted_over_the_whole_run(world, seconds):
    ranks = world(CheckpointConfig(every_steps=3, every_minutes=None))
    assert [ranks.step(seconds).save for _ in range(9)] == [False, False, True] * 3


def test_run_that_goes_on_in_between_is_saved_at_the_same_steps(world):
    ranks = world(CheckpointConfig(every_steps=3, every_minutes=None))
    ranks._step = 7
    assert [ranks.step(10.0).save for _ in range(5)] == [False, True, False, False, True]


def test_every_minutes_counts_from_the_last_checkpoint(world):
    ranks = world(CheckpointConfig(every_minutes=1.5))
    assert [ranks.step(30.0).save for _ in range(7)] == [False, False, True, False, False, True, False]
    ranks.ranks[0].saved()  # at an epoch's end
    assert [ranks.step(30.0).save for _ in range(3)] == [False, False, True]


def test_minutes_and_steps_go_together(world):
    ranks = world(CheckpointConfig(every_steps=4, every_minutes=1.0))
    # After step 4 the minute is counted anew.
    assert [ranks.step(25.0).save for _ in range(8)] == [False, False, True, True, False, False, True, True]


def test_wish_to_stop_saves_and_stops_within_about_a_second(world):
    wish = [False]
    ranks = world(CheckpointConfig(every_minutes=None), stop_requested=lambda: wish[0])
    assert {ranks.step(0.01) for _ in range(1000)} == {GO_ON}
    wish[0] = True
    decisions = [ranks.step(0.01) for _ in range(110)]
    place = decisions.index(SAVE_AND_STOP)
    assert decisions[:place] == [GO_ON] * place


def test_each_warning_of_a_preemption_is_one_checkpoint(world):
    warning: list[object | None] = [None]
    ranks = world(CheckpointConfig(every_minutes=None), preemption=lambda: warning[0], num_ranks=2)
    saved = []
    for warning[0] in (None, "node a", "node a", "node a", "nodes a and b", "nodes a and b", None, None, "node a"):
        saved.append(ranks.step(5.0))
    warned = {1, 4, 8}
    assert saved == [SAVE_AT_ONCE if number in warned else GO_ON for number in range(9)]


def test_ranks_talk_about_once_a_second_and_sooner_when_steps_get_slow(world):
    ranks = world(CheckpointConfig(every_minutes=None))
    for _ in range(1023):
        ranks.step(0.01)
    gaps = [after - before for before, after in pairwise(ranks.talks[0])]
    assert gaps[:7] == [2, 4, 8, 16, 32, 64, 100]
    assert set(gaps[6:]) <= {99, 100, 101}
    ranks.talks[0].clear()
    for _ in range(200):
        ranks.step(0.25)
    slow = ranks.talks[0]
    # One talk still comes late, for nobody could know; after it they are a second apart.
    assert slow[0] - 1023 <= 100
    assert {after - before for before, after in pairwise(slow[1:])} == {4}
    for _ in range(6):
        ranks.step(60.0)
    assert ranks.talks[0][-3:] == [1227, 1228, 1229]
    for _ in range(400):
        ranks.step(0.01)
    assert ranks.talks[0][-1] - ranks.talks[0][-2] in (99, 100, 101)


def test_steps_that_take_no_time_that_can_be_measured_are_talked_about(world):
    ranks = world(CheckpointConfig(every_minutes=None))
    for _ in range(100):
        ranks.step(0.0)
    assert ranks.talks[0] == [1, 3, 7, 15, 31, 63]


def test_checkpoint_that_is_due_by_its_step_needs_no_talk(world):
    ranks = world(CheckpointConfig(every_steps=1, every_minutes=None))
    assert {ranks.step(0.001) for _ in range(100)} == {SAVE}
    assert len(ranks.talks[0]) < 10


@pytest.mark.parametrize("seed", range(5))
def test_ranks_never_disagree(world, seed):
    rng = random.Random(seed)
    ranks = world(
        CheckpointConfig(every_steps=7, every_minutes=0.2),
        num_ranks=3,
        stop_requested=lambda: rng.random() < 0.05,
        # What they hear of a preemption differs from rank to rank.
        preemption=lambda: rng.choice([None, None, "a", "b"]),
    )
    decisions = {ranks.step(rng.choice([0.001, 0.1, 3.0])) for _ in range(300)}
    assert decisions == {GO_ON, SAVE, SAVE_AT_ONCE, SAVE_AND_STOP}
    assert ranks.talks[0] == ranks.talks[1] == ranks.talks[2]
