"""How a run ended, as the driver learns of it; Ray's controller reads it too, so it needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from qa_ray.tracking.metrics import Line, metrics_of


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
    history: list[Line]
    """All that was recorded since the run began, known to rank 0."""

    @property
    def evaluations(self) -> dict[int, Mapping[str, float]]:
        """Validation metrics by step."""
        return {line["step"]: metrics_of(line) for line in self.history if line["phase"] == "evaluate"}
