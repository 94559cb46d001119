"""Where a run stands: the position in the batch plan and what has been counted so far."""

from dataclasses import dataclass


@dataclass(slots=True)
class TrainState:
    """Counted by the loop; the same on every rank."""

    epoch: int = 0
    """Epoch under way, from 0."""
    position: int = 0
    """Batches of that epoch's plan already trained."""
    step: int = 0
    """Optimizer steps made, those skipped by the gradient scaler included."""
    skipped_steps: int = 0
    """Steps that fp16's gradient scaler skipped because a gradient overflowed."""
    windows: int = 0
    """Windows trained, over all ranks."""
