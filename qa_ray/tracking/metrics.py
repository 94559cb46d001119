"""What is measured while a run goes on: the metrics' names, and how far a phase has come."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qa_ray.storage.strict_json import to_json

TRAIN_LOSS = "train_loss"
"""Mean loss of the windows since the last record, in nats."""
LEARNING_RATE = "learning_rate"
GRAD_NORM = "grad_norm"
"""Norm of the gradient before clipping."""
WINDOWS_PER_SECOND = "windows_per_second"
TOKENS_PER_SECOND = "tokens_per_second"
"""Over all ranks, padding left out."""
PADDING_SHARE = "padding_share"
"""Padding tokens over all tokens."""
MODEL_FLOPS_UTILIZATION = "model_flops_utilization"
"""Share of the GPU's peak that the model's own arithmetic reaches."""
SKIPPED_STEPS = "skipped_steps"
"""Steps that fp16's gradient scaler has skipped so far."""
CHECKPOINT_STALL_SECONDS = "checkpoint_stall_seconds"
"""How long the steps stood still for checkpoints since the last record; absent where none was saved."""
PEAK_MEMORY_GB = "peak_memory_gb"
"""Largest resident memory of any worker process so far, in 10^9 bytes."""
PEAK_GPU_MEMORY_GB = "peak_gpu_memory_gb"
"""Most memory of a GPU that any worker's tensors have taken so far, in 10^9 bytes; absent without GPUs."""
EPOCH = "epoch"
"""Beside the validation metrics: epochs trained until then, with a fraction within one."""
EVAL_PREFIX = "eval_"
"""Stands before the validation metrics: eval_f1, eval_exact_match, eval_loss and so on."""
SHARE_PREFIX = "eval_share_"
"""The same, where they were measured on a share of the validation questions."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase has come, with metrics if there are new ones."""

    phase: str
    """`train` or `evaluate`."""
    done: int
    total: int
    """Optimizer steps in training, windows of this rank in evaluation."""
    step: int
    """Optimizer steps made so far."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    time: float = field(default_factory=time.time)
    """When it was recorded, in seconds since 1970."""

    def line(self) -> "Line":
        """The line of it in metrics.jsonl."""
        return {"time": round(self.time, 3), "phase": self.phase, "step": self.step, **self.metrics}


Line = dict[str, Any]
"""A line of metrics.jsonl: time, phase, step and metrics; where it is read from JSON, what was not finite is None."""


def lines_of(history: Iterable[Line]) -> bytes:
    """The content of metrics.jsonl."""
    return "".join(to_json(line) + "\n" for line in history).encode()


def metrics_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line that are finite: fp16's gradient norm is not where it skips a step."""
    found = {name: value for name, value in line.items() if name not in ("time", "phase", "step")}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def prefix_of(share: float) -> str:
    """What stands before the metrics of evaluations while a model trains, on so large a share of the questions."""
    return EVAL_PREFIX if share == 1 else SHARE_PREFIX


Record = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Record nothing."""
