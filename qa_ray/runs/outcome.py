"""How a run ended, as its ranks tell the driver; apart from what they run, since Ray's controller reads it too."""

from dataclasses import dataclass

from qa_ray.errors import StorageError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended on this rank."""

    step: int
    num_steps: int
    best_step: int | None
    """Step of the best evaluation, known to rank 0."""
    stopped: bool
    """Whether it was asked to stop before its end."""
    ledger: str
    """Digest of all batches trained, see `TrainState`."""
    error: StorageError | None
    """Checkpoints that could not be stored."""
