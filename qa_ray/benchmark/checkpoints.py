"""The benchmark's case of checkpoints: how long steps stand still for one, and what writing it takes from them."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from qa_ray.benchmark.timing import Row, Timing, interleave
from qa_ray.benchmark.training import seeded
from qa_ray.benchmark.workload import Workload
from qa_ray.config.operation import CheckpointConfig
from qa_ray.model.loading import load_model
from qa_ray.runs.saver import Saver
from qa_ray.runs.worker import make_accelerator
from qa_ray.storage.run_folder import RunFolder
from qa_ray.training.loop import TrainingLoop

_WARM_UP_STEPS = 4


def checkpoints(workload: Workload, *, steps: int, repeats: int) -> list[Row]:
    """The same loop's steps alone, and with a checkpoint among them that a thread stores meanwhile."""
    config = workload.config
    model = seeded(config, partial(load_model, config.model))
    accelerator = make_accelerator(config, use_gpu=torch.cuda.is_available())
    loop = TrainingLoop(config, workload.collator, model, accelerator)
    stalls: list[float] = []
    with tempfile.TemporaryDirectory(prefix="qa_ray-benchmark-") as place:
        saver = Saver(config, RunFolder(place, "benchmark"), accelerator, [])

        def save() -> None:
            begin = time.perf_counter()
            saver.save(loop, model, urgent=True)
            stalls.append(time.perf_counter() - begin)

        _steps(loop, _WARM_UP_STEPS)
        ways = {"alone": lambda: _time(loop, steps), "saved": lambda: _time(loop, steps, save)}
        timings = interleave("checkpoint", ways, repeats)
        saver.close()
        size = sum(path.stat().st_size for path in Path(place).glob("benchmark/checkpoints/*/**/*") if path.is_file())
    stall = float(np.median(stalls))
    minutes = CheckpointConfig().every_minutes or 0.0
    details = {
        "stall_seconds": stall,
        "stall_percent_at_default_interval": 100 * stall / (60 * minutes),
        "checkpoint_gb": size / 1e9 / config.checkpoint.keep,
    }
    return [
        Row(
            case="checkpoint",
            standard="steps alone",
            ours="with a checkpoint",
            unit="steps",
            standard_timings=timings["alone"],
            ours_timings=timings["saved"],
            details=details,
        )
    ]


def _time(loop: TrainingLoop, steps: int, save: Callable[[], None] | None = None) -> Timing:
    begin = time.perf_counter()
    if save is not None:
        save()
    _steps(loop, steps)
    return Timing(steps, time.perf_counter() - begin)


def _steps(loop: TrainingLoop, number: int) -> None:
    """Make so many steps, over the ends of epochs."""
    end = loop.state.step + number
    while loop.state.step < end and not loop.finished:
        loop.train_epoch(lambda: loop.state.step >= end)
