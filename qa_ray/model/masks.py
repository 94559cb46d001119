"""Attention masks made without a look at the device: the host knows whether anything of a batch is padded.

Transformers asks the mask itself, so that attention may do without one: a GPU's host then waits, in each forward pass,
for all that the GPU still has to do.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

_KERNELS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3")

_padded: ContextVar[bool | None] = ContextVar("padded", default=None)
"""Whether anything of the batch that is being computed is padded; None where nobody has said so."""


@contextlib.contextmanager
def padding_known(*, padded: bool) -> Iterator[None]:
    """Say for the forward passes inside whether anything of their batch is padded."""
    token = _padded.set(padded)
    try:
        yield
    finally:
        _padded.reset(token)


@functools.cache
def take_masks_from_host() -> None:
    """Let transformers' models take what `padding_known` says; where nothing is said, they find out as before."""
    for kernel in _KERNELS:
        if kernel in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(kernel, _informed(ALL_MASK_ATTENTION_FUNCTIONS[kernel]))


def _informed(make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def informed(*arguments: Any, **named: Any) -> Any:
        # Compiled code never looks, and must not depend on what is said for one batch.
        padded = None if torch.compiler.is_compiling() else _padded.get()
        if padded is False:
            named["attention_mask"] = None
        elif padded:
            named |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return make(*arguments, **named)

    return informed
