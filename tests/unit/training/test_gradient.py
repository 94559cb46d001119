"""Steps on a device whose memory does not suffice: the same sum, in smaller micro-batches."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Run, made_passages, make_run, tiny_config

from qa_ray.errors import ClusterError
from qa_ray.training.snapshot import Snapshot

PASSAGES = made_passages(14)
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def limited_run(folder: Path, **sections: Any) -> Run:
    """A run with dropout: a step that is done again must draw the same random numbers."""
    return make_run(tiny_config(folder, **{"model": {"dropout": 0.2}, "batch": {"size": 6}, **sections}), PASSAGES)


def weights(run: Run) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in run.model.parameters()])


def limits_while_training(run: Run) -> list[int | None]:
    """Train to the end; the limit after each step."""
    limits: list[int | None] = []

    def note() -> bool:
        limits.append(run.loop._add_gradient.limit.tokens)
        return False

    while not run.loop.finished:
        run.loop.train_epoch(note)
    return limits


def train_within(run: Run, limits: list[int | None]) -> None:
    """Train to the end with these limits, step by step, on a device that holds everything."""
    following = iter(limits)
    run.loop._add_gradient.limit.tokens = next(following)

    def follow() -> bool:
        run.loop._add_gradient.limit.tokens = next(following, None)
        return False

    while not run.loop.finished:
        run.loop.train_epoch(follow)


@contextmanager
def small_device(run: Run, tokens: int) -> Iterator[None]:
    """A device that holds so many padded tokens."""

    def refuse(module: Any, arguments: Any, inputs: dict[str, torch.Tensor]) -> None:
        if inputs["input_ids"].numel() > tokens:
            raise OUT_OF_MEMORY

    handle = run.model.register_forward_pre_hook(refuse, with_kwargs=True)
    yield
    handle.remove()


class Planted:
    """Runs out of memory at random: in a forward pass, or half-way through a backward pass, twice a step at most."""

    def __init__(self, run: Run, share: float) -> None:
        self.number = self._in_step = 0
        self._run, self._step = run, 0
        self._share, self._rng = share, random.Random(0)
        run.model.register_forward_pre_hook(self._before_forward)
        # Its gradient comes when those of the layers above are there.
        weight = run.model.bert.encoder.layer[0].attention.self.query.weight
        weight.register_hook(self._in_backward)

    def _before_forward(self, *_: object) -> None:
        self._strike()

    def _in_backward(self, gradient: torch.Tensor) -> None:
        self._strike()

    def _strike(self) -> None:
        if self._run.loop.state.step > self._step:
            self._step, self._in_step = self._run.loop.state.step, 0
        if self._in_step < 2 and self._rng.random() < self._share:
            self.number += 1
            self._in_step += 1
            raise OUT_OF_MEMORY


def test_step_that_does_not_fit_is_done_again_in_smaller_micro_batches(bert: Path, caplog: Any) -> None:
    run = limited_run(bert)
    with small_device(run, 96):
        limits = limits_while_training(run)
    reference = limited_run(bert)
    train_within(reference, limits)
    undisturbed = limited_run(bert).train()
    assert torch.equal(weights(run), weights(reference))
    assert run.loop.state.ledger == reference.loop.state.ledger == undisturbed.loop.state.ledger
    assert run.metric("train_loss") == reference.metric("train_loss")
    assert limits == [limits[0]] * run.loop.num_steps
    assert limits[0] is not None
    assert 32 <= limits[0] <= 96
    assert (
        "batch.max_tokens_per_device: the device's memory does not hold 6 windows of together 192 tokens" in caplog.text
    )
    # Other micro-batches sum in another order, and drop other numbers.
    assert not torch.equal(weights(run), weights(undisturbed))


def test_hundred_errors_at_random_change_nothing_but_the_size_of_micro_batches(bert: Path) -> None:
    many = {"train": {"epochs": 20}}
    run = limited_run(bert, **many)
    planted = Planted(run, share=0.4)
    limits = limits_while_training(run)
    assert planted.number >= 100
    assert len(set(limits)) > 1
    reference = limited_run(bert, **many)
    train_within(reference, limits)
    assert run.loop.state.ledger == reference.loop.state.ledger
    assert torch.equal(weights(run), weights(reference))
    assert run.metric("train_loss") == reference.metric("train_loss")
    assert run.metric("padding_share") == reference.metric("padding_share")


def test_device_that_holds_no_window_is_an_error_that_says_what_to_do(bert: Path) -> None:
    run = limited_run(bert)
    with small_device(run, 8), pytest.raises(ClusterError, match="not hold a single window of 32 tokens"):
        run.train()
    assert run.loop.state.step == 0


@pytest.mark.parametrize(
    ("configured", "expected"), [(None, "kept"), (64, "configured")], ids=["as before", "another limit is set"]
)
def test_run_goes_on_with_the_limit_that_it_had(bert: Path, tmp_path: Path, configured: Any, expected: str) -> None:
    undisturbed = limited_run(bert)
    with small_device(undisturbed, 100):
        limits = limits_while_training(undisturbed)
    run = limited_run(bert)
    with small_device(run, 100):
        run.loop.train_epoch(lambda: run.loop.state.step == 2)
    run.loop.snapshot().write(tmp_path)
    resumed = make_run(
        tiny_config(bert, model={"dropout": 0.2}, batch={"size": 6, "max_tokens_per_device": configured}),
        PASSAGES,
        model=run.model,
    )
    resumed.loop.restore(Snapshot.read(tmp_path))
    limit = resumed.loop._add_gradient.limit
    assert limit.tokens == (limits[0] if expected == "kept" else configured)
    if expected == "kept":
        assert limits_while_training(resumed) == limits[2:]
        assert torch.equal(weights(resumed), weights(undisturbed))


def test_window_without_weight_that_does_not_fit_is_tried_again_and_changes_nothing(bert: Path) -> None:
    run, before = limited_run(bert), torch.get_rng_state()
    refused: list[int] = []

    def refuse_once(*_: object) -> None:
        if not refused:
            refused.append(1)
            raise OUT_OF_MEMORY

    run.model.register_forward_pre_hook(refuse_once)
    run.loop._add_gradient._exchange()
    assert refused
    gradients = [weight.grad for weight in run.model.parameters() if weight.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    assert torch.equal(torch.get_rng_state(), before)


def test_snapshot_of_an_earlier_version_has_no_limit(bert: Path) -> None:
    run = limited_run(bert, batch={"size": 6, "max_tokens_per_device": 96})
    snapshot = run.loop.snapshot()
    for own in snapshot.ranks:
        del own["limit"]
    run.loop.restore(snapshot)
    assert run.loop._add_gradient.limit.tokens == 96


@pytest.mark.parametrize(("most", "held"), [(1, 1), (16, 16), (16, 11), (64, 37), (64, 1)])
def test_limit_that_is_found_holds_and_is_the_largest_to_an_eighth(bert: Path, most: int, held: int) -> None:
    run = limited_run(bert, batch={"size": most, "max_tokens_per_device": "auto"})
    find: Callable[[], None] = run.loop._add_gradient._find_limit
    before = torch.get_rng_state()
    with small_device(run, held * 32):
        find()
    found = run.loop._add_gradient.limit.tokens
    assert found is not None
    assert held - held // 8 <= found // 32 <= held
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is None for weight in run.model.parameters())
    assert not run.loop._add_gradient.limit.wanted


def test_packed_windows_train_as_padded_ones_do(bert: Path) -> None:
    # A larger epsilon than usual: else AdamW makes whole steps of what rounding leaves of gradients that are 0. All
    # windows are in each batch, since packed ones are drawn otherwise.
    sections: dict[str, Any] = {"optim": {"eps": 1e-3}, "train": {"epochs": 5}}
    padded, packed = (
        make_run(
            tiny_config(bert, batch={"size": 100, "max_tokens_per_device": 64, "packing": packing}, **sections),
            PASSAGES,
        )
        for packing in (False, True)
    )
    for run in (padded, packed):
        run.train()
    assert packed.loop.state.step == padded.loop.state.step == 5
    torch.testing.assert_close(weights(packed), weights(padded), rtol=1e-3, atol=1e-5)
    assert packed.metric("train_loss") == pytest.approx(padded.metric("train_loss"), rel=1e-4)
    assert set(packed.metric("padding_share")) == {0.0}
    assert max(padded.metric("padding_share")) > 0


def test_packed_step_that_does_not_fit_is_done_again_with_fewer_tokens(bert: Path) -> None:
    run = limited_run(bert, batch={"size": 6, "packing": True})
    with small_device(run, 96):
        limits = limits_while_training(run)
    reference = limited_run(bert, batch={"size": 6, "packing": True})
    train_within(reference, limits)
    assert limits[0] is not None
    assert 32 <= limits[0] <= 96
    assert torch.equal(weights(run), weights(reference))
