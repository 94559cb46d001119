import math

import pytest
import torch
from small_runs import tiny_config

from qa_ray.config.fine_tuning import OptimConfig
from qa_ray.config.policies import Schedule
from qa_ray.model.loading import load_model
from qa_ray.training.optim import make_optimizer, make_schedule


def rates(config, num_steps):
    """Learning rate of each step, and the one after the last."""
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config)
    schedule = make_schedule(optimizer, config, num_steps)
    found = [schedule.get_last_lr()[0]]
    for _ in range(num_steps):
        optimizer.step()
        schedule.step()
        found.append(schedule.get_last_lr()[0])
    return found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule.LINEAR, [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]),
        (Schedule.COSINE, [0.0, 0.5, *((1 + math.cos(math.pi * step / 8)) / 2 for step in range(9))]),
        (Schedule.CONSTANT, [0.0, 0.5, *[1.0] * 9]),
        (Schedule.WSD, [0.0, 0.5, *[1.0] * 5, 0.75, 0.5, 0.25, 0.0]),
    ],
)
def test_rate_rises_over_the_warm_up_and_then_falls(schedule, expected):
    config = OptimConfig(learning_rate=1.0, warmup_ratio=0.2, decay_ratio=0.4, schedule=schedule)
    assert rates(config, 10) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", Schedule)
def test_without_warm_up_the_first_step_has_the_peak_rate(schedule):
    assert rates(OptimConfig(learning_rate=3e-5, warmup_ratio=0.0, schedule=schedule), 5)[0] == pytest.approx(3e-5)


@pytest.mark.parametrize("family", ["bert", "xlnet", "modernbert", "gpt2"])
def test_only_matrices_are_decayed(saved, family):
    model = load_model(tiny_config(saved(family)).model)
    frozen = next(model.parameters()).requires_grad_(False)
    decayed, kept = make_optimizer(model, OptimConfig(weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    names = {weight: name for name, weight in model.named_parameters()}
    assert frozen not in {*decayed["params"], *kept["params"]}
    assert len(decayed["params"]) + len(kept["params"]) == len(names) - 1
    for weight in kept["params"]:
        assert weight.ndim == 1 or names[weight].endswith("bias")
    for weight in decayed["params"]:
        assert weight.ndim >= 2
        assert "bias" not in names[weight]


def test_weights_without_a_gradient_of_their_own_shrink_only_if_decayed():
    layer = torch.nn.Linear(2, 2)
    optimizer = make_optimizer(layer, OptimConfig(weight_decay=0.5, learning_rate=0.1))
    before = {name: weight.detach().clone() for name, weight in layer.named_parameters()}
    for weight in layer.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before["weight"] * 0.95)
    assert torch.equal(layer.bias, before["bias"])


def test_settings_of_adam_are_passed_on():
    config = OptimConfig(learning_rate=0.25, betas=(0.5, 0.75), eps=0.125)
    settings = make_optimizer(torch.nn.Linear(2, 2), config).defaults
    assert (settings["lr"], settings["betas"], settings["eps"]) == (0.25, (0.5, 0.75), 0.125)
