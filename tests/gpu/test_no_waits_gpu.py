"""Steps on a GPU for which nobody waits: batches made ahead in pinned memory, numbers that are read a step later."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from families import FAMILIES
from small_runs import Run, made_passages, make_run, tiny_config, weights_of

from qa_ray.config.policies import Precision
from qa_ray.data.collate import Batch
from qa_ray.model.compute import accelerate_name
from qa_ray.tracking.metrics import SKIPPED_STEPS, TRAIN_LOSS
from qa_ray.training import gradient
from qa_ray.training.prefetch import Prefetcher
from qa_ray.training.to_host import CopiedTensors

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

PASSAGES = made_passages(14)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) for name in ("bert", "modernbert", "deberta", "gpt2", "llama")}
    for name, folder in found.items():
        FAMILIES[name].save(folder)
    return found


def run_on_gpu(config: Any, precision: Precision, scale: float | None = None) -> Run:
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=accelerate_name(precision))
    if scale is not None:
        accelerator.scaler = torch.amp.GradScaler("cuda", init_scale=scale, backoff_factor=2.0**-8)
    return make_run(config, PASSAGES, accelerator=accelerator)


def train_without_waits(run: Run) -> None:
    """Train the second epoch; what waits for the GPU between its steps is an error."""
    run.loop.train_epoch()
    last = run.loop.num_steps - 1

    def pause() -> bool:
        torch.cuda.set_sync_debug_mode("error")
        return run.loop.state.step == last

    try:
        run.loop.train_epoch(pause)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run.train()


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.FP16])
@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta", "gpt2", "llama"])
def test_no_step_waits_for_the_gpu(folders: dict[str, Path], family: str, precision: Precision) -> None:
    config = tiny_config(folders[family], train={"log_every": 1000}, batch={"max_tokens_per_device": 96})
    train_without_waits(run_on_gpu(config, precision))


def test_steps_that_fp16_skips_are_counted_though_nobody_waits_for_them(folders: dict[str, Path]) -> None:
    config = tiny_config(folders["bert"], train={"epochs": 2}, optim={"warmup_ratio": 0.0})
    run = run_on_gpu(config, Precision.FP16, scale=2.0**100)
    before = weights_of(run)
    run.loop.train_epoch(lambda: True)
    assert torch.equal(weights_of(run), before)
    train_without_waits(run)
    skipped = run.metric(SKIPPED_STEPS)
    assert skipped[0] == 1
    assert 1 < run.loop.state.skipped_steps == skipped[-1] < run.loop.num_steps
    made = {int(state["step"]) for state in run.loop._optimizer.state.values()}
    assert made == {run.loop.num_steps - run.loop.state.skipped_steps}


def test_batches_made_ahead_in_pinned_memory_train_the_same_run(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[bool, str]] = []
    pin = Batch.pin

    def noting(batch: Batch) -> Batch:
        pinned = pin(batch)
        made.append((pinned.block.is_pinned() and pinned.places.is_pinned(), threading.current_thread().name))
        return pinned

    class AtOnce(Prefetcher):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.ahead = False

    monkeypatch.setattr(Batch, "pin", noting)
    config = tiny_config(folders["bert"], model={"dropout": 0.2})
    ahead = run_on_gpu(config, Precision.FP32).train()
    assert all(pinned for pinned, _ in made)
    assert sum(name.startswith("qa_ray-collate") for _, name in made) == ahead.loop.num_steps - config.train.epochs
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("qa_ray-collate")]
    monkeypatch.setattr(gradient, "Prefetcher", AtOnce)
    at_once = run_on_gpu(config, Precision.FP32).train()
    torch.testing.assert_close(ahead.metric(TRAIN_LOSS), at_once.metric(TRAIN_LOSS), rtol=1e-5, atol=0)
    assert ahead.loop.state.ledger == at_once.loop.state.ledger


def test_copy_holds_what_tensors_were_though_the_gpu_changes_them_at_once() -> None:
    tensor = torch.zeros(2**26, device="cuda")
    tensor += 1
    copy = CopiedTensors({"one": tensor, "other": tensor})
    tensor += 1
    found = copy.read()
    assert found["one"] is found["other"]
    assert found["one"].is_pinned()
    assert (found["one"] == 1).all()


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16])
def test_flash_attention_trains(folders: dict[str, Path], precision: Precision) -> None:
    """Where its package is not there, sdpa stands in its place."""
    try:
        import flash_attn  # noqa: F401

        attention = "flash_attention_2"
    except ImportError:
        attention = "sdpa"
    config = tiny_config(folders["bert"], model={"attention": attention})
    run = run_on_gpu(config, precision).train()
    assert run.model.config._attn_implementation == attention
    assert all(torch.isfinite(torch.tensor(run.metric(TRAIN_LOSS))))
