"""Between two steps the host never looks at what the device computes, so that a GPU is never kept waiting."""

from typing import Any

import pytest
import torch
from device_waits import waits
from families import FAMILIES
from small_runs import cpu_accelerator, made_passages, make_run, scaling_accelerator, tiny_config

from qa_ray.training import wrapping

ACCELERATORS = {
    "fp32": cpu_accelerator,
    "bf16": lambda: cpu_accelerator("bf16"),
    # Skips the first steps.
    "fp16": lambda: scaling_accelerator(2.0**127),
}


def waits_of_steps(config: Any, accelerator: Any) -> list[str]:
    """What all steps of a run but the first would wait for, but the end of the epoch."""
    run = make_run(config, made_passages(9), accelerator=accelerator)
    run.loop.train_epoch(lambda: True)
    number = run.loop.num_steps - 2

    def pause() -> bool:
        return run.loop.state.step > number

    with waits() as found:
        run.loop.train_epoch(pause)
    assert run.loop.state.step == number + 1
    return sorted(set(found))


def test_what_would_wait_is_seen() -> None:
    tensor = torch.tensor([1.0, 0.0])
    looks = [
        lambda: tensor[0].item(),
        lambda: bool(tensor.all()),
        lambda: float(tensor[0]),
        lambda: tensor.tolist(),
        lambda: tensor.cpu(),
        lambda: tensor.to("cpu"),
        lambda: tensor[tensor > 0],
        lambda: tensor.nonzero(),
    ]
    for look in looks:
        with waits() as found:
            look()
        assert len(found) == 1
    with waits() as found:
        (tensor * 2).sum().to("cpu", non_blocking=True).numpy()
    assert not found


@pytest.mark.parametrize("log_every", [1, 100], ids=["each step is recorded", "no step is recorded"])
@pytest.mark.parametrize("precision", ACCELERATORS)
def test_step_waits_for_nothing(bert: Any, precision: str, log_every: int) -> None:
    config = tiny_config(bert, train={"epochs": 1, "log_every": log_every})
    assert waits_of_steps(config, ACCELERATORS[precision]()) == []


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if "untrimmed" not in name])
def test_models_wait_for_nothing(saved: Any, monkeypatch: pytest.MonkeyPatch, family: str, attention: str) -> None:
    if attention == "sdpa" and family in ("deberta", "xlnet"):
        pytest.skip("transformers has no such kernel for this family")
    monkeypatch.setattr(wrapping, "use_row_gradients", id)  # on CPUs only, which are not waited for
    config = tiny_config(
        saved(family), model={"attention": attention}, train={"epochs": 1}, batch={"max_tokens_per_device": 48}
    )
    assert waits_of_steps(config, cpu_accelerator()) == []
