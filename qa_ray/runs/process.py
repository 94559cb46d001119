"""How the process of a worker is set up, before it computes."""

import torch
import transformers


def set_up_process(num_threads: int) -> None:
    """Set the CPU threads that torch computes with in this worker, and keep libraries quiet."""
    torch.set_num_threads(num_threads)
    # Ranks would each print the same tables about the new head, between the lines of the progress bar.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
