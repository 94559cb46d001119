"""The benchmark's case of Ray's overhead: the same training steps in a bare loop, and through the Ray driver."""

import json
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from qa_ray.benchmark.timing import Row, Timing, interleave, speed
from qa_ray.benchmark.training import seeded
from qa_ray.benchmark.workload import Workload, to_squad
from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import ClusterConfig, RunConfig, TrackingConfig
from qa_ray.data.collate import Collator
from qa_ray.errors import DataError
from qa_ray.model.loading import load_model
from qa_ray.runs.driver import train as train_on_ray
from qa_ray.runs.worker import make_accelerator
from qa_ray.schema import Passage
from qa_ray.tracking.metrics import TRAIN_LOSS, WINDOWS_PER_SECOND, Progress
from qa_ray.training.loop import TrainingLoop

# The first part pays for memory and kernels that later steps reuse.
_PARTS = 4
_LONGEST_RECORD = 10


def driver(workload: Workload, *, steps: int, repeats: int, threads: int) -> list[Row]:
    """The same steps in a bare loop in this process, and through Ray with one worker of as many threads."""
    passages = _one_window_questions(workload, steps)
    startups: list[float] = []
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="qa_ray-benchmark-") as place:
        config = _driver_config(workload.config, passages, Path(place), threads)
        bare = partial(_time_bare, config, workload.featurise(passages), losses)
        timings = interleave("driver", {"bare": bare, "ray": partial(_time_ray, config, losses, startups)}, repeats)
    details = {
        "overhead_percent": 100 * (speed(timings["bare"]) / speed(timings["ray"]) - 1),
        "startup_seconds": float(np.median(startups)),
        "standard_train_loss": losses["bare"],
        "ours_train_loss": losses["ray"],
    }
    return [
        Row(
            case="driver",
            standard="bare loop",
            ours="through Ray",
            unit="windows",
            standard_timings=timings["bare"],
            ours_timings=timings["ray"],
            goal=0.975,
            details=details,
        )
    ]


def _one_window_questions(workload: Workload, num_batches: int) -> list[Passage]:
    """Full batches of questions with one window each, drawn at random: every step then has as many windows.

    There are `num_batches` to be timed, at least, and those that warm up; fewer if the data has not so many.
    """
    size = workload.config.batch.size
    windows = workload.collator.windows
    alone = set(np.flatnonzero(np.bincount(windows.question) == 1).tolist())
    pairs = [(passage.context, question) for passage in workload.passages for question in passage.questions]
    single = [pair for number, pair in enumerate(pairs) if number in alone and pair[1].answers]
    batches_per_part = min(-(-num_batches // (_PARTS - 1)), len(single) // (_PARTS * size))
    if not batches_per_part:
        least = _PARTS * size
        raise DataError(f"--data has {len(single)} answered questions with one window: at least {least} are needed")
    chosen = np.random.default_rng(0).permutation(len(single))[: _PARTS * batches_per_part * size]
    return [Passage(single[number][0], (single[number][1],)) for number in chosen.tolist()]


def _driver_config(config: Config, passages: list[Passage], place: Path, threads: int) -> Config:
    for name, part in (("train", passages), ("validation", passages[:4])):
        (place / f"{name}.json").write_text(json.dumps(to_squad(part, "benchmark")), encoding="utf-8")
    batches_per_part = len(passages) // (_PARTS * config.batch.size)
    # A record then never spans two parts.
    log_every = max(every for every in range(1, _LONGEST_RECORD + 1) if batches_per_part % every == 0)
    return replace(
        config,
        data=DataConfig(train=str(place / "train.json"), validation=str(place / "validation.json")),
        # Evaluating and saving at an epoch's end is not what is compared.
        train=replace(config.train, epochs=1, log_every=log_every),
        cluster=ClusterConfig(num_workers=1, cpus_per_worker=threads),
        run=RunConfig(name="benchmark", storage_path=str(place)),
        tracking=TrackingConfig(enabled=False),
    )


def _time_bare(config: Config, collator: Collator, losses: dict[str, float]) -> Timing:
    records: list[Progress] = []
    model = seeded(config, partial(load_model, config.model))
    accelerator = make_accelerator(config, use_gpu=torch.cuda.is_available())
    loop = TrainingLoop(config, collator, model, accelerator, records.append)
    while not loop.finished:
        loop.train_epoch()
    return _steady(config, [{"step": r.step, **r.metrics} for r in records if r.metrics], "bare", losses)


def _time_ray(config: Config, losses: dict[str, float], startups: list[float]) -> Timing:
    run = replace(config.run, name=f"benchmark-{len(startups)}")
    begin = time.time()
    folder = Path(train_on_ray(replace(config, run=run)).folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    records = [line for line in lines if line["phase"] == "train"]
    first = records[0]
    startups.append(first["time"] - begin - config.batch.size * first["step"] / first[WINDOWS_PER_SECOND])
    return _steady(config, records, "ray", losses)


def _steady(config: Config, records: list[dict[str, float]], name: str, losses: dict[str, float]) -> Timing:
    """Work and seconds of the records after the first part; all batches are full."""
    losses[name] = records[-1][TRAIN_LOSS]
    timed = [record for record in records if record["step"] > records[-1]["step"] / _PARTS]
    work = config.batch.size * config.train.log_every
    return Timing(work * len(timed), sum(work / record[WINDOWS_PER_SECOND] for record in timed))
