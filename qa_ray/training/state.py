"""Where a run stands: the position in the batch plan and what has been counted so far."""

import hashlib
from dataclasses import dataclass

from qa_ray.data.batching import Longs


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
    skipped_in_a_row: int = 0
    """Those of them since the last step that succeeded."""
    windows: int = 0
    """Windows trained, over all ranks."""
    ledger: str = ""
    """Digest of the window numbers of all batches trained, in their order; see `enter`."""


def enter(ledger: str, batch: Longs) -> str:
    """Digest of a ledger with one more batch: equal ledgers mean that the same batches were trained in one order."""
    return hashlib.sha256(ledger.encode() + batch.tobytes()).hexdigest()
