"""A model made ready to be trained: on its device, without weights that nothing depends on, wrapped."""

from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from transformers import PreTrainedModel

from qa_ray.config.fine_tuning import Config
from qa_ray.data.collate import Batch
from qa_ray.errors import ConfigError
from qa_ray.model.compute import freeze_unused
from qa_ray.model.embedding import use_row_gradients


def make_trainable(model: PreTrainedModel, config: Config, accelerator: Accelerator, batch: Batch) -> nn.Module:
    """Return the model to be prepared by the accelerator; `batch` is any of those that it will be trained on.

    Raises:
        ConfigError: gradient checkpointing is asked of a model that has none, or fp32 of a kernel that has none.
    """
    kernel, on_cpu = model.config._attn_implementation or "", accelerator.device.type == "cpu"
    if kernel.startswith("flash_attention") and accelerator.mixed_precision == "no":
        raise ConfigError(f"model.attention={kernel} computes only in bf16 and fp16, on GPUs: take sdpa for fp32")
    if on_cpu and accelerator.mixed_precision == "bf16" and kernel == "sdpa" and config.model.attention is None:
        # On CPUs the gradient of torch's own kernel takes twice as long in bf16 as that of plain matrix products.
        model.set_attn_implementation("eager")
    # There, and in the format, in which it is trained: some attention kernels compute nowhere else.
    model.to(accelerator.device)
    with accelerator.autocast():
        freeze_unused(model, batch.to(accelerator.device))
    # On GPUs rows would be sorted before they are added, and their number waited for.
    if on_cpu:
        use_row_gradients(model)
    if config.train.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise ConfigError(f"train.gradient_checkpointing: {type(model).__name__} does not support it: turn it off")
        # Before transformers 5.23 it had the name that is deprecated since then.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    # No forward pass may wait for other ranks, so no buffers are sent around: a rank whose memory is short makes more
    # passes. That number is also why the graph is not static: it would have to be the same in each step.
    accelerator.ddp_handler = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    return cast(nn.Module, torch.compile(model, dynamic=True)) if config.train.compile else model
