"""What ranks tell the main process, and no other."""

from typing import TypeVar

import torch
from accelerate import Accelerator

T = TypeVar("T")


def gather_on_main(accelerator: Accelerator, item: T) -> list[T]:
    """Every rank's item, in their order, on the main process; nothing on the others, which do not wait."""
    if accelerator.num_processes == 1:
        return [item]
    gathered: list[T | None] | None = [None] * accelerator.num_processes if accelerator.is_main_process else None
    torch.distributed.gather_object(item, gathered)
    return [one for one in gathered or () if one is not None]
