"""The speeds of an interval in which a run was stopped, and went on from its snapshot."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import made_passages, make_run, tiny_config
from torch.optim.optimizer import register_optimizer_step_pre_hook

from qa_ray.tracking.metrics import WINDOWS_PER_SECOND
from qa_ray.training.snapshot import Snapshot

Ranks = list[dict[str, torch.Tensor]]


def as_they_were(ranks: Ranks) -> Ranks:
    return ranks


def twice(ranks: Ranks) -> Ranks:
    """As of two ranks that had equal shares at the same time."""
    return [{name: tensor.clone() for name, tensor in own.items()} for own in ranks * 2]


def without_seconds(ranks: Ranks) -> Ranks:
    """As earlier versions wrote them."""
    return [{name: tensor for name, tensor in own.items() if name != "seconds"} for own in ranks]


@pytest.fixture
def second_a_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock that goes on by a second with every step of an optimizer, and stands between."""
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    handle = register_optimizer_step_pre_hook(lambda *_: now.append(now.pop() + 1))
    yield
    handle.remove()


@pytest.mark.parametrize(("change", "rate"), [(as_they_were, 14 / 4), (twice, (8 + 14) / 4), (without_seconds, 14 / 2)])
@pytest.mark.usefixtures("second_a_step")
def test_first_rate_after_a_stop_is_that_of_the_whole_interval(
    bert: Path, tmp_path: Path, change: Callable[[Ranks], Ranks], rate: float
) -> None:
    config, passages = tiny_config(bert, train={"log_every": 4}), made_passages(8)
    run = make_run(config, passages)
    assert not run.loop.train_epoch(lambda: run.loop.state.step == 2)
    snapshot = run.loop.snapshot()
    ranks = change(snapshot.ranks)
    replace(snapshot, ranks=ranks, facts=snapshot.facts | {"world_size": len(ranks)}).write(tmp_path)
    run = make_run(config, passages)
    run.loop.restore(Snapshot.read(tmp_path))
    assert run.loop.train_epoch()
    # The epoch's 14 windows are four steps.
    assert [record.metrics[WINDOWS_PER_SECOND] for record in run.records if record.metrics] == [rate]
