"""When a run is saved and when it stops: the same on every rank, at any speed of the steps."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from qa_ray.config.operation import CheckpointConfig
from qa_ray.training import control
from qa_ray.training.control import Control, Decision
from qa_ray.training.wishes import Wishes

GO_ON = Decision()
SAVE = Decision(save=True)
SAVE_AT_ONCE = Decision(save=True, urgent=True)
SAVE_AND_STOP = Decision(save=True, urgent=True, stop=True)
SAVE_AND_WAIT = Decision(save=True, urgent=True, wait=True)
NEVER = CheckpointConfig(every_minutes=None)


class World:
    """Ranks that take their steps one after the other, each with a clock of its own."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        config: CheckpointConfig,
        *,
        num_ranks: int = 1,
        wishes: Callable[[], Wishes] = Wishes,
        preemption: Callable[[], object | None] = lambda: None,
    ) -> None:
        self.now = 1000.0
        self.talks: list[list[int]] = [[] for _ in range(num_ranks)]
        """Steps after which each rank talked."""
        self.asked: Counter[str] = Counter()
        """What was asked of Ray, and told, and how often."""
        self._wishes, self._preemption = wishes, preemption
        self._rank = self._step = 0
        self._said: list[Any] = []
        monkeypatch.setattr(control, "time", SimpleNamespace(monotonic=self._monotonic, sleep=self._sleep))
        monkeypatch.setattr(control, "broadcast_object_list", self._broadcast)
        self.ranks = [Control(config, SimpleNamespace(is_main_process=rank == 0), self) for rank in range(num_ranks)]

    def step(self, seconds: float) -> Decision:
        """Make a step that takes so long, and return what all ranks decide."""
        self.now += seconds
        self._step += 1

        def decide(rank: Control) -> Decision:
            decision = rank(self._step)
            if decision.save:
                rank.saved()
            return decision

        return self._of_all(decide)

    def wait(self, stored: Callable[[], bool | None]) -> bool:
        """Wait for a resize, and return whether all ranks stop."""
        return self._of_all(lambda rank: rank.wait(stored if rank is self.ranks[0] else self._only_main))

    def _of_all(self, act: Callable[[Control], Any]) -> Any:
        self._said.clear()
        self._heard = [0] * len(self.ranks)
        answers = []
        for number, rank in enumerate(self.ranks):
            self._rank = number
            answers.append(act(rank))
        assert answers == answers[:1] * len(answers)
        assert self._heard == self._heard[:1] * len(answers)
        return answers[0]

    def _monotonic(self) -> float:
        return self.now + 777.0 * self._rank

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _broadcast(self, message: list[Any]) -> None:
        self.talks[self._rank].append(self._step)
        if self._rank == 0:
            self._said.append(message[0])
        message[:] = [self._said[self._heard[self._rank]]]
        self._heard[self._rank] += 1

    def wishes(self) -> Wishes:
        self._asks("wishes")
        return self._wishes()

    def preemption(self) -> object | None:
        self._asks("preemption")
        return self._preemption()

    def saved(self) -> None:
        self._asks("saved")

    def go_on(self) -> None:
        self._asks("go_on")

    def _asks(self, what: str) -> None:
        assert self._rank == 0, f"{what}: on a rank that is not the main process"
        self.asked[what] += 1

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
    ranks = world(CheckpointConfig(every_minutes=None), wishes=lambda: Wishes(stop=wish[0]))
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
        wishes=lambda: Wishes(stop=rng.random() < 0.05, resize=rng.random() < 0.05),
        preemption=lambda: rng.choice([None, None, "a", "b"]),
    )
    decisions = {ranks.step(rng.choice([0.001, 0.1, 3.0])) for _ in range(300)}
    assert decisions == {GO_ON, SAVE, SAVE_AT_ONCE, SAVE_AND_STOP, SAVE_AND_WAIT}
    assert ranks.talks[0] == ranks.talks[1] == ranks.talks[2]


def test_ray_is_asked_once_a_talk_however_many_ranks_there_are(world):
    ranks = world(NEVER, num_ranks=8, preemption=lambda: "node a")
    for _ in range(10):
        ranks.step(5.0)
    assert ranks.asked == {"wishes": 10, "preemption": 10}


def in_turn(answers: Iterable[Any]) -> Callable[[], Any]:
    """One answer after the other, and the last for ever."""
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


RESIZE, NOTHING, STOP = Wishes(resize=True), Wishes(), Wishes(stop=True)


@pytest.mark.parametrize(
    ("wishes", "stored", "stops", "told"),
    [
        ([RESIZE] * 6 + [NOTHING], [None, None, True], False, {"saved": 1}),
        ([RESIZE] * 2 + [NOTHING], [None], False, {}),
        ([RESIZE], [None, False], False, {"go_on": 1}),
        ([RESIZE] * 3 + [Wishes(stop=True, resize=True)], [True], True, {"saved": 1, "go_on": 1}),
        ([RESIZE, STOP], [None], True, {"go_on": 1}),
        ([RESIZE], [True], False, {"saved": 1, "go_on": 1}),
    ],
    ids=[
        "withdrawn after the checkpoint",
        "withdrawn before it is stored",
        "checkpoint that is not stored",
        "stopped while nothing happens",
        "stopped while it is stored",
        "controller that does nothing for a minute",
    ],
)
def test_ranks_that_wait_for_a_resize_go_on_where_none_comes(world, wishes, stored, stops, told):
    ranks = world(NEVER, num_ranks=3, wishes=in_turn([RESIZE, *wishes]))
    assert ranks.step(1.0) == SAVE_AND_WAIT
    before = ranks.asked.copy()
    begun = ranks.now
    assert ranks.wait(in_turn(stored)) is stops
    assert {name: n for name, n in (ranks.asked - before).items() if name != "wishes"} == told
    assert ranks.now - begun <= 62.0


def test_run_that_is_to_stop_waits_for_no_resize(world):
    ranks = world(NEVER, wishes=lambda: Wishes(stop=True, resize=True))
    assert ranks.step(1.0) == SAVE_AND_STOP
