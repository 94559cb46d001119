"""A run that is stopped, saved, read back and gone on with is the run that was never stopped."""

import json
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
import torch
from accelerate import Accelerator
from small_runs import Run, changed, cpu_accelerator, made_passages, make_run, tiny_config
from torch.optim.optimizer import register_optimizer_step_pre_hook

from qa_ray.config.fine_tuning import Config
from qa_ray.errors import TrainingError
from qa_ray.model.folder import save_model
from qa_ray.model.loading import load_model, load_tokenizer
from qa_ray.tracking.metrics import GRAD_NORM, LEARNING_RATE, PADDING_SHARE, SKIPPED_STEPS, TRAIN_LOSS
from qa_ray.training.snapshot import Snapshot

PASSAGES = made_passages(8)
NUM_STEPS = 8
"""Two epochs of 15 windows in batches of 4."""
NOT_SPEEDS = (TRAIN_LOSS, LEARNING_RATE, GRAD_NORM, PADDING_SHARE, SKIPPED_STEPS)


@dataclass(frozen=True)
class Variant:
    """A way to train."""

    sections: dict[str, dict[str, Any]]
    accelerator: Callable[[], Accelerator] = cpu_accelerator


VARIANTS = {
    "fp32": Variant({}),
    "micro-batches": Variant({"batch": {"max_tokens_per_device": 48}}),
    "bf16": Variant({}, lambda: cpu_accelerator("bf16")),
    # The scaler skips the first two steps.
    "gradient scaler": Variant({}, lambda: small_runs.scaling_accelerator(2.0**30)),
}


def config_of(folder: Path, **sections: dict[str, Any]) -> Config:
    """Dropout draws random numbers, and a record of two steps may span a stop."""
    config = tiny_config(folder, model={"dropout": 0.3}, train={"log_every": 2})
    return changed(config, **sections)


def advance(run: Run, to: int | None = None) -> Run:
    """Train until `to` steps are made, or to the end."""
    while not run.loop.finished and run.loop.train_epoch(lambda: run.loop.state.step == to):
        pass
    return run


def at_each_step(option: str, action: Callable[[], Run]) -> list[Any]:
    """An option of the optimizer, such as the learning rate, at each of the steps that it makes in an action."""
    used: list[Any] = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0][option]))
    try:
        action()
    finally:
        handle.remove()
    return used


def write(run: Run, config: Config, folder: Path) -> Path:
    """Save a run as a checkpoint does."""
    save_model(folder / "model", run.model, load_tokenizer(config.model), config, None)
    run.loop.snapshot().write(folder)
    return folder


def resumed(config: Config, folder: Path, variant: Variant = VARIANTS["fp32"]) -> Run:
    """A new run that goes on from what `write` has written."""
    # Whatever the process has drawn until now must make no difference.
    torch.rand(7)
    model = load_model(replace(config.model, name=str(folder / "model")))
    run = make_run(config, PASSAGES, model=model, accelerator=variant.accelerator())
    run.loop.restore(Snapshot.read(folder))
    return run


def train(config: Config, variant: Variant, stops: list[int], tmp_path: Path) -> list[Run]:
    """Train to the end, and stop on the way: the parts of one run."""
    runs = [make_run(config, PASSAGES, accelerator=variant.accelerator())]
    for stop in stops:
        folder = write(advance(runs[-1], to=stop), config, tmp_path / str(stop))
        runs.append(resumed(config, folder, variant))
    advance(runs[-1])
    return runs


def records(runs: list[Run]) -> dict[int, dict[str, str]]:
    """What was recorded at each step, but for speeds: every digit, and a NaN equals itself."""
    kept = [record for run in runs for record in run.records if record.metrics]
    found = {
        record.step: {name: repr(record.metrics[name]) for name in NOT_SPEEDS if name in record.metrics}
        for record in kept
    }
    assert len(found) == len(kept), "a step was recorded twice"
    return found


def assert_alike(parts: list[Run], whole: list[Run]) -> None:
    assert torch.equal(small_runs.weights_of(parts[-1]), small_runs.weights_of(whole[-1]))
    assert records(parts) == records(whole)
    assert parts[-1].loop.state == whole[-1].loop.state


@pytest.fixture(scope="module")
def undisturbed(bert, tmp_path_factory):
    """Train a variant without any stop, once for all tests."""
    known: dict[str, list[Run]] = {}

    def get(name: str) -> list[Run]:
        if name not in known:
            config = config_of(bert, **VARIANTS[name].sections)
            known[name] = train(config, VARIANTS[name], [], tmp_path_factory.mktemp("whole"))
            assert known[name][0].loop.num_steps == NUM_STEPS
            assert sorted(records(known[name])) == [2, 4, 6, 8]
        return known[name]

    return get


@pytest.mark.parametrize("stop", range(1, NUM_STEPS + 1))
@pytest.mark.parametrize("name", VARIANTS)
def test_run_stopped_after_any_step_goes_on_bit_for_bit(bert, tmp_path, undisturbed, name, stop):
    config = config_of(bert, **VARIANTS[name].sections)
    assert_alike(train(config, VARIANTS[name], [stop], tmp_path), undisturbed(name))


@pytest.mark.parametrize("stops", [[1, 2], [3, 6], [4, 5, 7]], ids=str)
def test_run_stopped_several_times_goes_on_bit_for_bit(bert, tmp_path, undisturbed, stops):
    assert_alike(train(config_of(bert), VARIANTS["fp32"], stops, tmp_path), undisturbed("fp32"))


@pytest.mark.parametrize("family", ["xlnet", "deberta", "modernbert", "gpt2"])
def test_every_kind_of_model_goes_on_bit_for_bit(saved, tmp_path, family):
    config = config_of(saved(family), train={"epochs": 1})
    whole = train(config, VARIANTS["fp32"], [], tmp_path)
    assert_alike(train(config, VARIANTS["fp32"], [2], tmp_path), whole)


def test_variants_test_what_they_are_named_for(bert, undisturbed):
    def metric(runs: list[Run], name: str) -> list[str]:
        return [metrics[name] for metrics in records(runs).values()]

    plain = undisturbed("fp32")
    assert metric(undisturbed("micro-batches"), PADDING_SHARE) != metric(plain, PADDING_SHARE)
    assert metric(undisturbed("bf16"), TRAIN_LOSS) != metric(plain, TRAIN_LOSS)
    assert undisturbed("gradient scaler")[0].loop.state.skipped_steps == 2
    dry = make_run(config_of(bert, model={"dropout": 0.0}), PASSAGES).train()
    assert metric([dry], TRAIN_LOSS) != metric(plain, TRAIN_LOSS)


def test_gradient_scaler_keeps_scale_and_counts(bert, tmp_path):
    config, variant = config_of(bert), VARIANTS["gradient scaler"]
    first = advance(make_run(config, PASSAGES, accelerator=variant.accelerator()), to=3)
    scaler = first.accelerator.scaler.state_dict()
    assert scaler["scale"] < 2.0**30
    second = resumed(config, write(first, config, tmp_path), variant)
    assert second.accelerator.scaler.state_dict() == scaler
    assert second.loop.state.skipped_steps == first.loop.state.skipped_steps > 0


@pytest.mark.parametrize("stop", [1, 2])
def test_steps_skipped_in_a_row_are_counted_across_a_stop(bert, tmp_path, stop):
    config, variant = config_of(bert), VARIANTS["gradient scaler"]
    run = advance(make_run(config, PASSAGES, accelerator=variant.accelerator()), to=stop)
    assert resumed(config, write(run, config, tmp_path), variant).loop.state.skipped_in_a_row == stop


@pytest.mark.parametrize(("before", "after"), [("fp32", "gradient scaler"), ("gradient scaler", "fp32")])
def test_run_that_goes_on_in_another_precision_counts_the_steps_that_are_skipped_in_it(bert, tmp_path, before, after):
    config = config_of(bert)
    run = make_run(config, PASSAGES, accelerator=VARIANTS[before].accelerator())
    run = resumed(config, write(advance(run, to=3), config, tmp_path), VARIANTS[after])
    assert advance(run).loop.state.skipped_steps == 2  # in either case: before the stop, or after it


def test_run_of_an_earlier_version_goes_on_with_the_optimizer_that_skips_steps_by_itself(bert, tmp_path):
    """With a gradient scaler it was another kind, which waited for the device at each step."""
    config, variant = config_of(bert), VARIANTS["gradient scaler"]
    folder = write(advance(make_run(config, PASSAGES, accelerator=variant.accelerator()), to=1), config, tmp_path)
    state = json.loads((folder / "state.json").read_text())
    for group in state["param_groups"]:
        group["fused"] = False
    (folder / "state.json").write_text(json.dumps(state))
    run = resumed(config, folder, variant)
    assert set(at_each_step("fused", lambda: advance(run))) == {True}
    assert run.loop.state.skipped_steps == 2


def test_run_stopped_after_its_last_step_only_closes_the_epoch(bert, tmp_path, undisturbed):
    config = config_of(bert)
    run = resumed(config, write(advance(make_run(config, PASSAGES), to=NUM_STEPS), config, tmp_path))
    assert (run.loop.state.step, run.loop.state.epoch, run.loop.finished) == (NUM_STEPS, 1, False)
    assert run.loop.train_epoch()
    assert (run.loop.state.step, run.loop.state.epoch, run.loop.finished) == (NUM_STEPS, 2, True)
    assert not run.records
    assert torch.equal(small_runs.weights_of(run), small_runs.weights_of(undisturbed("fp32")[0]))


def test_run_stopped_at_max_steps_in_mid_epoch_closes_the_epoch(bert, tmp_path):
    config = config_of(bert, train={"max_steps": 6})
    run = resumed(config, write(advance(make_run(config, PASSAGES), to=6), config, tmp_path))
    assert not run.loop.finished
    assert run.loop.train_epoch()
    assert run.loop.finished
    assert run.loop.state.step == 6


def test_pause_in_mid_epoch_says_that_the_epoch_is_not_done(bert):
    run = make_run(config_of(bert), PASSAGES)
    assert not run.loop.train_epoch(lambda: run.loop.state.step == 3)
    assert (run.loop.state.epoch, run.loop.state.position, run.loop.state.step) == (0, 3, 3)
    assert run.loop.train_epoch()
    assert (run.loop.state.epoch, run.loop.state.position, run.loop.state.step) == (1, 0, 4)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("stop", [3, 8])
def test_more_epochs_follow_the_longer_schedule(bert, tmp_path, stop, schedule):
    config = config_of(bert, optim={"schedule": schedule})
    longer = changed(config, train={"epochs": 4})
    expected = at_each_step("lr", lambda: make_run(longer, PASSAGES).train())
    run = resumed(longer, write(advance(make_run(config, PASSAGES), to=stop), config, tmp_path))
    found = at_each_step("lr", lambda: advance(run))
    assert len(found) == 2 * NUM_STEPS - stop
    assert found == expected[stop:]


@pytest.mark.parametrize("in_store", [True, False], ids=["with a normal number in store", "without one"])
def test_random_numbers_go_on_where_they_stood(bert, tmp_path, in_store):
    config = config_of(bert)

    def draw() -> list[Any]:
        numbers = [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand()]
        return [*numbers, torch.rand(3).tolist(), torch.randn(3).tolist()]

    random.seed(1)
    np.random.seed(1)
    if in_store:
        draw()  # normal numbers are made in pairs: the other one stands ready
    folder = write(advance(make_run(config, PASSAGES), to=1), config, tmp_path)
    expected = draw()
    random.random()
    np.random.rand()
    resumed(config, folder)
    assert draw() == expected


def test_snapshot_is_data_that_cannot_be_executed(bert, tmp_path, monkeypatch):
    config = config_of(bert)
    snapshot = advance(make_run(config, PASSAGES), to=3).loop.snapshot()
    snapshot.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"optimizer.safetensors", "ranks.safetensors", "state.json"}
    json.loads((tmp_path / "state.json").read_text())

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    read = Snapshot.read(tmp_path)
    make_run(config, PASSAGES).loop.restore(read)
    assert read.step == snapshot.step == 3
    assert read.facts == json.loads(json.dumps(snapshot.facts))
    for ours, theirs in zip([read.optimizer, *read.ranks], [snapshot.optimizer, *snapshot.ranks], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_snapshot_of_a_gradient_that_is_not_finite_is_refused(bert):
    run = make_run(config_of(bert), PASSAGES, before=small_runs.poison)
    run.loop.train_epoch(lambda: True)
    with pytest.raises(TrainingError, match="at step 1, epoch 0"):
        run.loop.snapshot()


def test_snapshot_on_cpus_asks_nothing_of_a_gpu_that_is_there(bert, monkeypatch):
    """Its generator's state would open a context on it, which takes memory of other processes' GPU."""
    run = advance(make_run(config_of(bert), PASSAGES), to=1)

    def refuse(*_: Any) -> None:
        raise AssertionError("a GPU was asked")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", refuse)
    monkeypatch.setattr(torch.cuda, "set_rng_state", refuse)
    snapshot = run.loop.snapshot()
    snapshot.ranks[0]["cuda"] = torch.zeros(16, dtype=torch.uint8)  # as a GPU has left it
    run.loop.restore(snapshot)
