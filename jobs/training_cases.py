"""The benchmark's cases of training: steps against the standard loop, and through Ray against the bare loop."""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ray
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from comparison import Material, Row, Run, interleave, now, speed
from datasets import Dataset
from standard import StandardLoop, training_features
from transformers import BertConfig, BertForQuestionAnswering, PreTrainedModel

from qa_ray.cli import start_ray
from qa_ray.config import ClusterConfig, Config, DataConfig, RunConfig, TrackingConfig
from qa_ray.data.batching import Longs, padded_length, plan_epoch
from qa_ray.data.collate import Collator
from qa_ray.data.squad import to_squad
from qa_ray.errors import DataError
from qa_ray.model import load_model
from qa_ray.policies import Precision
from qa_ray.schema import Passage
from qa_ray.tracking import TRAIN_LOSS, WINDOWS_PER_SECOND, Progress
from qa_ray.training.driver import train as train_on_ray
from qa_ray.training.loop import TrainingLoop
from qa_ray.training.throughput import flops_per_token, peak_flops
from qa_ray.training.worker import make_accelerator

# The first steps pay for memory and kernels that later ones reuse.
_WARM_UP_STEPS = 4
_TIMED_EPOCHS = 3
_LOG_EVERY = 10
# Layers, width and attention heads.
_SHAPES = {"MiniLM": (6, 384, 12), "BERT-base": (12, 768, 12), "BERT-large": (24, 1024, 16)}
# Ratios that are hoped for on a CPU, by the precision of the standard way, its padding and the precision of ours.
_GOALS = {(Precision.FP32, "max_length", Precision.BF16): 4.0, (Precision.FP32, "batch", Precision.FP32): 1.5}


class _Way(NamedTuple):
    """One way to train."""

    precision: Precision
    padding: str
    """Standard: to `max_length` or to the longest of the `batch`. Ours: `grouped`."""

    def __str__(self) -> str:
        return f"{'length groups' if self.padding == 'grouped' else f'pad to {self.padding}'} {self.precision}"


def train(material: Material, *, steps: int, repeats: int) -> list[Row]:
    """Training steps of one process: windows per second."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    items = spread_batches(material.collator.windows.length, material.config, steps)
    rows = []
    for name, make in _models(material.config, device).items():
        rows += _train_model(name, make, material, items, device, repeats)
    return rows


def _models(config: Config, device: torch.device) -> dict[str, Callable[[], PreTrainedModel]]:
    """The recipe's model on a CPU; on a GPU, where it is too small to show much, models of three sizes as well."""
    if device.type == "cpu":
        return {"MiniLM": partial(load_model, config.model)}
    return {name: partial(_random_bert, *shape) for name, shape in _SHAPES.items()}


def _random_bert(layers: int, width: int, heads: int) -> PreTrainedModel:
    settings = BertConfig(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width
    )
    return BertForQuestionAnswering(settings)


def _train_model(
    name: str,
    make: Callable[[], PreTrainedModel],
    material: Material,
    items: Longs,
    device: torch.device,
    repeats: int,
) -> list[Row]:
    window = material.config.window
    features = {
        padding: training_features(
            material.rows, material.tokenizer, window.max_length, window.stride, pad=padding == "max_length"
        ).select(items)
        for padding in ("max_length", "batch")
    }
    collator = _only(material.collator, items)
    low, high = (Precision.FP32, Precision.BF16) if device.type == "cpu" else (Precision.FP16, Precision.BF16)
    standard = [_Way(precision, padding) for precision in (low, high) for padding in features]
    ours = [_Way(precision, "grouped") for precision in (low, high)]
    ways: dict[str, Callable[[], Run]] = {
        str(way): partial(_time_standard, material, features[way.padding], way.precision, make, device)
        for way in standard
    } | {str(way): partial(_time_ours, material.config, collator, way.precision, make, device) for way in ours}
    runs = interleave(f"train {name}", ways, repeats)
    pairs = [(s, o) for s in standard for o in ours if s.precision == o.precision or s.padding == "max_length"]
    return [
        Row(
            case=f"train {name}",
            standard=str(theirs),
            ours=str(own),
            unit="windows",
            standard_runs=runs[str(theirs)],
            ours_runs=runs[str(own)],
            goal=_GOALS.get((theirs.precision, theirs.padding, own.precision)) if device.type == "cpu" else None,
            details=_utilization(make(), collator, device, runs[str(theirs)], runs[str(own)]),
        )
        for theirs, own in pairs
        if (theirs.precision, own.precision) != (high, low)
    ]


def _time_standard(
    material: Material, features: Dataset, precision: Precision, make: Callable[[], PreTrainedModel], device: torch.device
) -> Run:
    config = _with(material.config, precision)
    loop = StandardLoop(
        features,
        material.tokenizer,
        _seeded(config, make),
        make_accelerator(config, use_gpu=device.type == "cuda"),
        batch_size=config.batch.size,
        learning_rate=config.optim.learning_rate,
        weight_decay=config.optim.weight_decay,
    )
    loop.train(_WARM_UP_STEPS)
    begin = now(device)
    num_windows = loop.train()
    return Run(num_windows, now(device) - begin)


def _time_ours(
    config: Config, collator: Collator, precision: Precision, make: Callable[[], PreTrainedModel], device: torch.device
) -> Run:
    config = _with(config, precision)
    model = _seeded(config, make)
    loop = TrainingLoop(config, collator, model, make_accelerator(config, use_gpu=device.type == "cuda"))
    # The last batches of one epoch warm up, then all of the next are timed.
    loop.state.position = max(0, loop.num_steps // 2 - _WARM_UP_STEPS)
    loop.train_epoch()
    warm_up = loop.state.windows
    begin = now(device)
    loop.train_epoch()
    return Run(loop.state.windows - warm_up, now(device) - begin)


def _with(config: Config, precision: Precision) -> Config:
    # Two epochs: one to warm up in, one to time.
    return replace(config, train=replace(config.train, precision=precision, epochs=2))


def _seeded(config: Config, make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """A new model; and a new accelerator may have another precision than the one before in this process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    set_seed(config.train.seed)
    return make()


def _utilization(
    model: PreTrainedModel, collator: Collator, device: torch.device, standard: list[Run], ours: list[Run]
) -> dict[str, float]:
    """Share of the GPU's peak that the model's own arithmetic reaches, without that on padding."""
    peak, length = peak_flops(device), float(collator.windows.length.mean())
    if peak is None:
        return {}
    per_window = flops_per_token(model, length) * length
    return {
        f"{side}_model_flops_utilization": per_window * speed(runs) / peak
        for side, runs in (("standard", standard), ("ours", ours))
    }


def spread_batches(lengths: Longs, config: Config, num_batches: int) -> Longs:
    """Windows of some full batches of an epoch's plan, evenly spread from the shortest batch to the longest.

    A few of the plan's own batches stand for all of an epoch, in length and in padding; the standard way trains the
    same windows in random order.

    Raises:
        DataError: there is no full batch.
    """
    size = config.batch.size
    plan = plan_epoch(lengths, config.batch, seed=config.train.seed, epoch=0)
    full = plan.order[: len(lengths) // size * size].reshape(-1, size)
    if not len(full):
        raise DataError(f"--data has {len(lengths)} windows: at least one batch of {size} is needed")
    chosen = min(num_batches, len(full))
    place = (2 * np.arange(chosen) + 1) * len(full) // (2 * chosen)
    by_length = full[np.argsort(lengths[full].sum(axis=1), kind="stable")]
    items: Longs = np.sort(by_length[place].ravel())
    return items


def _only(collator: Collator, items: Longs) -> Collator:
    windows = collator.windows
    names = [field.name for field in fields(windows) if field.name != "cut_questions"]
    return replace(collator, windows=replace(windows, **{name: getattr(windows, name)[items] for name in names}))


def padding_shares(material: Material) -> dict[str, float]:
    """Padding tokens over all tokens in an epoch of all windows, for each way to batch them."""
    config, lengths = material.config, material.collator.windows.length
    size, max_length = config.batch.size, config.window.max_length
    shuffled = np.random.default_rng(config.train.seed).permutation(len(lengths))
    random = [shuffled[begin : begin + size] for begin in range(0, len(lengths), size)]
    plan = list(plan_epoch(lengths, config.batch, seed=config.train.seed, epoch=0).batches())
    multiple = config.batch.pad_to_multiple_of
    totals = {
        "pad to max_length": len(lengths) * max_length,
        "pad to batch": sum(len(batch) * int(lengths[batch].max()) for batch in random),
        "ours": sum(len(batch) * padded_length(int(lengths[batch].max()), multiple, max_length) for batch in plan),
    }
    return {name: 1 - float(lengths.sum()) / total for name, total in totals.items()}


def driver(material: Material, *, steps: int, repeats: int, threads: int) -> list[Row]:
    """The same steps in a bare loop in this process, and through Ray with one worker of as many threads."""
    if not ray.is_initialized():
        begin = time.perf_counter()
        start_ray(ClusterConfig(local_cpus=threads))
        print(f"  driver: Ray started in {time.perf_counter() - begin:.1f} s", file=sys.stderr)
    passages = _one_window_questions(material, steps)
    startups: list[float] = []
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="qa_ray-benchmark-") as place:
        config = _driver_config(material.config, passages, Path(place), threads)
        bare = partial(_time_bare, config, material.featurise(passages), losses)
        runs = interleave("driver", {"bare": bare, "ray": partial(_time_ray, config, losses, startups)}, repeats)
    details = {
        "overhead_percent": 100 * (speed(runs["bare"]) / speed(runs["ray"]) - 1),
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
            standard_runs=runs["bare"],
            ours_runs=runs["ray"],
            goal=0.975,
            details=details,
        )
    ]


def _one_window_questions(material: Material, num_batches: int) -> list[Passage]:
    """Full batches of questions with one window each, drawn at random: every step then has as many windows."""
    size = material.config.batch.size
    windows = material.collator.windows
    alone = set(np.flatnonzero(np.bincount(windows.question) == 1).tolist())
    pairs = [(passage.context, question) for passage in material.passages for question in passage.questions]
    single = [pair for number, pair in enumerate(pairs) if number in alone and pair[1].answers]
    count = min(num_batches * size, len(single) // size * size)
    if not count:
        raise DataError(f"--data has {len(single)} answered questions with one window: at least {size} are needed")
    chosen = np.random.default_rng(0).permutation(len(single))[:count]
    return [Passage(single[number][0], (single[number][1],)) for number in chosen.tolist()]


def _driver_config(config: Config, passages: list[Passage], place: Path, threads: int) -> Config:
    for name, part in (("train", passages), ("validation", passages[:4])):
        (place / f"{name}.json").write_text(json.dumps(to_squad(part, "benchmark")), encoding="utf-8")
    num_batches = len(passages) // config.batch.size
    return replace(
        config,
        data=DataConfig(train=str(place / "train.json"), validation=str(place / "validation.json")),
        train=replace(config.train, epochs=1 + _TIMED_EPOCHS, log_every=min(_LOG_EVERY, num_batches)),
        cluster=ClusterConfig(num_workers=1, cpus_per_worker=threads),
        run=RunConfig(name="benchmark", storage_path=str(place)),
        tracking=TrackingConfig(enabled=False),
    )


def _time_bare(config: Config, collator: Collator, losses: dict[str, float]) -> Run:
    records: list[Progress] = []
    model = _seeded(config, partial(load_model, config.model))
    accelerator = make_accelerator(config, use_gpu=torch.cuda.is_available())
    loop = TrainingLoop(config, collator, model, accelerator, records.append)
    while not loop.finished:
        loop.train_epoch()
    return _steady(config, [{"step": r.step, **r.metrics} for r in records if r.metrics], "bare", losses)


def _time_ray(config: Config, losses: dict[str, float], startups: list[float]) -> Run:
    run = replace(config.run, name=f"benchmark-{len(startups)}")
    begin = time.time()
    folder = Path(train_on_ray(replace(config, run=run)).folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    records = [line for line in lines if line["phase"] == "train"]
    first = records[0]
    startups.append(first["time"] - begin - config.batch.size * first["step"] / first[WINDOWS_PER_SECOND])
    return _steady(config, records, "ray", losses)


def _steady(config: Config, records: list[dict[str, float]], name: str, losses: dict[str, float]) -> Run:
    """Work and seconds of the records after the first epoch, which warms up; all batches are full."""
    losses[name] = records[-1][TRAIN_LOSS]
    timed = [record for record in records if record["step"] > records[-1]["step"] / (1 + _TIMED_EPOCHS)]
    work = config.batch.size * config.train.log_every
    return Run(work * len(timed), sum(work / record[WINDOWS_PER_SECOND] for record in timed))
