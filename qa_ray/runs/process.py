"""How the process of a worker is set up, before it computes."""

import ctypes

import torch
import transformers

# Options of the C library's malloc, by their numbers in glibc's malloc.h, and bytes.
_KEPT_MEMORY = {-1: 2**31 - 1, -2: 2**26, -3: 2**30}  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD


def set_up_process(num_threads: int) -> None:
    """Set the CPU threads that torch computes with in this worker, keep memory between steps, and libraries quiet."""
    torch.set_num_threads(num_threads)
    # Without it each large tensor is given back to the kernel, and the next one's pages are cleared one by one.
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        for option, value in _KEPT_MEMORY.items():
            allocator.mallopt(option, value)
    # Ranks would each print the same tables about the new head, between the lines of the progress bar.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
