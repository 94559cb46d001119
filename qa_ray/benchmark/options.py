"""What the benchmark is asked for."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from qa_ray.errors import require


class Case(StrEnum):
    """What is measured."""

    FEATURISE = "featurise"
    """Examples to labelled windows."""
    TRAIN = "train"
    """Training steps in one process, without Ray."""
    DECODE = "decode"
    """Logits to answer texts."""
    CHECKPOINT = "checkpoint"
    """Training steps with a checkpoint among them, against the same steps without."""
    DRIVER = "driver"
    """Training steps through Ray, against the same steps without it."""
    PREDICT = "predict"
    """Questions answered by the prediction job, against a plain loop."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Measure qa_ray against the standard way, side by side in one run: datasets, transformers and accelerate."""

    cases: tuple[Case, ...] = tuple(Case)
    """What is measured."""
    data: str = "package://qa_ray/data/sample/train.json"
    """Nested SQuAD JSON."""
    batch_size: int = 16
    """Windows per optimizer step, of both ways."""
    threads: int = 2
    """CPU threads that each way computes with; decoding takes one."""
    steps: int = 30
    """Training steps that are timed of each way, over all repeats together."""
    repeats: int = 3
    """Times that each way has its turn."""
    out: Path = Path("benchmark.json")
    """File that takes the results."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "threads", "steps", "repeats"):
            number = getattr(self, name)
            require(number >= 1, f"--{name.replace('_', '-')}={number} must be at least 1")

    @property
    def steps_per_repeat(self) -> int:
        """Training steps of one turn."""
        return max(1, self.steps // self.repeats)
