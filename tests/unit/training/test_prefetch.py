"""Batches made ahead in a thread train the same run, and nothing is left of the thread."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import Run, changed, made_passages, make_run, tiny_config, weights_of

from qa_ray.training import gradient
from qa_ray.training.prefetch import Prefetcher

PASSAGES = made_passages(14)
CPU = torch.device("cpu")


class Ahead(Prefetcher):
    """Makes batches ahead on a CPU too, and notes which thread made each."""

    def __init__(self, collate: Callable[..., Any], device: torch.device) -> None:
        def noting(group: Any) -> Any:
            self.makers.append(threading.current_thread().name)
            return collate(group)

        self.makers: list[str] = []
        super().__init__(noting, device)
        self.ahead = True


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("qa_ray-collate")]


def run_ahead(config: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    with monkeypatch.context() as patched:
        patched.setattr(gradient, "Prefetcher", Ahead)
        return make_run(config, PASSAGES)


def test_run_whose_batches_are_made_ahead_is_the_same_run(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(bert, model={"dropout": 0.2}, batch={"max_tokens_per_device": 64})
    run = run_ahead(config, monkeypatch)
    batches: Any = run.loop._add_gradient.batches
    run.train()
    plain = make_run(config, PASSAGES).train()
    assert torch.equal(weights_of(run), weights_of(plain))
    assert run.loop.state == plain.loop.state
    # The first step of each of the two epochs has nothing that was made ahead.
    in_step = [name for name in batches.makers if not name.startswith("qa_ray-collate")]
    assert 2 <= len(in_step) < len(batches.makers) / 2
    assert not threads()


def test_batch_is_made_while_the_step_before_is_computed(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_ahead(tiny_config(bert), monkeypatch)
    made = threading.Event()
    batches: Any = run.loop._add_gradient.batches
    make = batches._make

    def tell(group: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            made.set()
        return make(group)

    batches._make = tell

    def wait(*_: Any) -> None:
        if run.loop.state.step < run.loop.num_steps // 2 - 1:  # the last of an epoch has none after it
            assert made.wait(60)
        made.clear()

    run.model.register_forward_pre_hook(wait)
    run.loop.train_epoch()


def test_step_that_does_not_fit_is_made_of_other_groups_than_those_prepared(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(bert, model={"dropout": 0.2}, batch={"size": 6})

    def train(run: Run) -> Run:
        def refuse(module: Any, arguments: Any, inputs: Any) -> None:
            if inputs["input_ids"].numel() > 96:
                raise torch.OutOfMemoryError("CUDA out of memory")

        run.model.register_forward_pre_hook(refuse, with_kwargs=True)
        return run.train()

    run, plain = train(run_ahead(config, monkeypatch)), train(make_run(config, PASSAGES))
    assert run.loop._add_gradient.limit.tokens == plain.loop._add_gradient.limit.tokens
    assert torch.equal(weights_of(run), weights_of(plain))


@pytest.mark.parametrize("failing", [1, 3])
def test_error_of_the_thread_comes_out_in_the_step_that_uses_the_batch(
    bert: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    run = run_ahead(changed(tiny_config(bert), train={"epochs": 1}), monkeypatch)
    batches: Any = run.loop._add_gradient.batches
    make, number = batches._make, 0

    def fail_there(group: Any) -> Any:
        nonlocal number
        ahead = threading.current_thread() is not threading.main_thread()
        number += ahead
        if ahead and number == failing:
            raise OSError("the data is gone")
        return make(group)

    batches._make = fail_there
    with pytest.raises(OSError, match="the data is gone"):
        run.loop.train_epoch()
    assert run.loop.state.step == failing
    assert not threads()


def test_on_cpus_nothing_is_made_ahead() -> None:
    batches = Prefetcher(lambda group: group, CPU)
    with batches.running():
        batches.prepare([np.arange(3)])
        assert not threads()
    assert not batches.ahead
