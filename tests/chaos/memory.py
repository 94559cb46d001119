"""A device whose memory holds few tokens at once, and now and then not even those: planted into a run's workers.

What it refuses follows from the size of a micro-batch alone, so that runs which start again meet the same limits as one
that is left alone. What it refuses now and then is a single window, which is tried again as it is.
"""

import os
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from qa_ray.runs import worker

CAPACITY = 96
"""Padded tokens of several windows that it holds at once in training; of one window it holds any number."""
SHORTAGE = "CHAOS_SHORTAGE"
"""Names the variable that tells a job that its workers have such devices, and by which file they run short."""


def train_worker(shortage: str, task: worker.TrainingTask) -> Any:
    """Train on such a device; when there is a file `shortage`, the next window that comes alone does not fit either."""
    hook = register_module_forward_pre_hook(partial(take, shortage))
    try:
        return worker.train_worker(task)
    finally:
        hook.remove()


def take(shortage: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Before a module's forward pass: raise an out-of-memory error where the device holds no such micro-batch."""
    # Of a model's embeddings that of the tokens alone has padding.
    if not (module.training and isinstance(module, nn.Embedding) and module.padding_idx is not None):
        return
    rows, width = inputs[0].shape
    if (rows > 1 and rows * width > CAPACITY) or (rows == 1 and _claimed(shortage)):
        raise torch.OutOfMemoryError(f"planted: {rows} windows of {width} tokens")


def _claimed(shortage: str) -> bool:
    """Whether this process is the one that meets a shortage."""
    try:
        os.unlink(shortage)
    except FileNotFoundError:
        return False
    return True
