"""When a run is evaluated within its epochs, at whose ends it always is, and when evaluations end it early."""

import math
from collections.abc import Sequence

from qa_ray.config.fine_tuning import Config, EvalConfig
from qa_ray.data.batching import num_steps, steps_per_epoch
from qa_ray.errors import ConfigError


def is_due(config: EvalConfig, *, step: int, position: int, epoch_steps: int) -> bool:
    """Whether an evaluation is due within an epoch.

    Args:
        config: says how often.
        step: optimizer steps made since the run began.
        position: those of them within the epoch.
        epoch_steps: steps of a whole epoch.
    """
    if config.every_steps is not None:
        return step % config.every_steps == 0
    # The first step at which another part is behind.
    return position * config.per_epoch // epoch_steps > (position - 1) * config.per_epoch // epoch_steps


def check_evaluations(config: Config, num_windows: int) -> None:
    """Refuse evaluations that a run on so many training windows would never come to.

    Raises:
        ConfigError: it has fewer steps, or an epoch has.
    """
    every, per_epoch = config.evaluate.every_steps, config.evaluate.per_epoch
    steps, epoch_steps = num_steps(num_windows, config), steps_per_epoch(num_windows, config.batch.size)
    if every is not None and every > steps:
        raise ConfigError(f"evaluate.every_steps={every}: the run has {steps} steps in all; set fewer")
    if per_epoch > epoch_steps:
        raise ConfigError(f"evaluate.per_epoch={per_epoch}: an epoch has {epoch_steps} steps; set fewer")


def is_exhausted(merits: Sequence[float], *, patience: int | None, min_gain: float) -> bool:
    """Whether the last `patience` evaluations brought no gain over the best before them.

    Args:
        merits: of all evaluations after the first step, oldest first; more is better.
        patience: how many are waited for; None for ever.
        min_gain: what counts as a gain, beyond the best so far.
    """
    best, waited = -math.inf, 0
    for merit in merits:
        if merit > best + min_gain:
            best, waited = merit, 0
        else:
            waited += 1
    return patience is not None and waited >= patience
