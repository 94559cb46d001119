"""The optimizer and its learning-rate schedule."""

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from qa_ray.config.fine_tuning import OptimConfig
from qa_ray.config.policies import Schedule

_NAMES = {
    Schedule.LINEAR: "linear",
    Schedule.COSINE: "cosine",
    Schedule.CONSTANT: "constant_with_warmup",
    Schedule.WSD: "warmup_stable_decay",
}


def make_optimizer(model: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW over the trainable weights; biases and normalisation weights are not decayed.

    Under a gradient scaler it skips steps by itself, on the device, so that the host need not wait to decide.
    """
    weights = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    # XLNet's attention biases are matrices.
    decayed = {name for name, weight in weights if weight.ndim >= 2 and not name.endswith("bias")}
    groups = [
        {"params": [weight for name, weight in weights if name in decayed], "weight_decay": config.weight_decay},
        {"params": [weight for name, weight in weights if name not in decayed], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


def make_schedule(optimizer: AdamW, config: OptimConfig, num_steps: int) -> LRScheduler:
    """Warm-up from 0 to the peak over `warmup_ratio` of `num_steps`, then the chosen fall to 0 (or none)."""
    further = {}
    if config.schedule is Schedule.WSD:
        further = {"num_decay_steps": round(config.decay_ratio * num_steps), "decay_type": "linear"}
    schedule: LRScheduler = get_scheduler(
        _NAMES[config.schedule],
        optimizer,
        num_warmup_steps=round(config.warmup_ratio * num_steps),
        num_training_steps=num_steps,
        scheduler_specific_kwargs=further,
    )
    return schedule
