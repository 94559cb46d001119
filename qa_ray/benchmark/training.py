"""The benchmark's case of training: steps of our loop against the standard loop, in one process without Ray."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from datasets import Dataset
from transformers import AutoModelForQuestionAnswering, BertConfig, BertForQuestionAnswering, PreTrainedModel

from qa_ray.benchmark.standard import StandardLoop, training_features
from qa_ray.benchmark.timing import Row, Timing, interleave, now, speed
from qa_ray.benchmark.workload import Workload
from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import Precision
from qa_ray.data.batching import padded_length, plan_epoch
from qa_ray.data.collate import Collator
from qa_ray.errors import DataError
from qa_ray.locations import resolve
from qa_ray.model.loading import load_model
from qa_ray.runs.worker import make_accelerator
from qa_ray.schema import Int64s
from qa_ray.training.loop import TrainingLoop
from qa_ray.training.throughput import flops_per_token, peak_flops

# The first steps pay for memory and kernels that later ones reuse.
_WARM_UP_STEPS = 4
# Layers, width and attention heads.
_SHAPES = {"MiniLM": (6, 384, 12), "BERT-base": (12, 768, 12), "BERT-large": (24, 1024, 16)}
# Ratios that are hoped for on a CPU, by the precision of the standard way, its padding and the precision of ours.
_GOALS = {(Precision.FP32, "max_length", Precision.BF16): 6.0, (Precision.FP32, "batch", Precision.FP32): 2.5}


class _Way(NamedTuple):
    """One way to train."""

    precision: Precision
    padding: str
    """Standard: to `max_length` or to the longest of the `batch`. Ours: `grouped`."""

    def __str__(self) -> str:
        return f"{'length groups' if self.padding == 'grouped' else f'pad to {self.padding}'} {self.precision}"


def train(workload: Workload, *, steps: int, repeats: int, bf16: bool) -> list[Row]:
    """Training steps of one process, windows per second; without `bf16` no row of that precision."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    items = spread_batches(workload.collator.windows.length, workload.config, steps)
    rows = []
    for name, make in _models(workload.config, device).items():
        rows += _train_model(name, make, workload, items, device, repeats, bf16)
    return rows


def _models(config: Config, device: torch.device) -> dict[str, Callable[[], PreTrainedModel]]:
    """The recipe's model on a CPU; on a GPU, models of three sizes with random weights."""
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
    workload: Workload,
    items: Int64s,
    device: torch.device,
    repeats: int,
    bf16: bool,
) -> list[Row]:
    window = workload.config.window
    features = {
        padding: training_features(
            workload.rows, workload.tokenizer, window.max_length, window.stride, pad=padding == "max_length"
        ).select(items)
        for padding in ("max_length", "batch")
    }
    collator = _only(workload.collator, items)
    low = Precision.FP32 if device.type == "cpu" else Precision.FP16
    precisions = [low, *[Precision.BF16] * bf16]
    standard = [_Way(precision, padding) for precision in precisions for padding in features]
    ours = [_Way(precision, "grouped") for precision in precisions]
    ways: dict[str, Callable[[], Timing]] = {}
    for way in standard:
        # On a CPU our way chooses the kernels of attention and linear layers; the standard way takes the usual ones.
        path = resolve(workload.config.model.name)
        usual = partial(AutoModelForQuestionAnswering.from_pretrained, path) if device.type == "cpu" else make
        ways[str(way)] = partial(_time_standard, workload, features[way.padding], way, usual, device)
    for way in ours:
        ways[str(way)] = partial(_time_ours, workload.config, collator, way.precision, make, device)
    timings = interleave(f"train {name}", ways, repeats)
    pairs = [(s, o) for s in standard for o in ours if s.precision == o.precision or s.padding == "max_length"]
    return [
        Row(
            case=f"train {name}",
            standard=str(theirs),
            ours=str(own),
            unit="windows",
            standard_timings=timings[str(theirs)],
            ours_timings=timings[str(own)],
            goal=_GOALS.get((theirs.precision, theirs.padding, own.precision)) if device.type == "cpu" else None,
            details=_utilization(make, collator, device, timings[str(theirs)], timings[str(own)]),
        )
        for theirs, own in pairs
        if (theirs.precision, own.precision) != (Precision.BF16, low)
    ]


def _time_standard(
    workload: Workload, features: Dataset, way: _Way, make: Callable[[], PreTrainedModel], device: torch.device
) -> Timing:
    config = _with(workload.config, way.precision)
    loop = StandardLoop(
        features,
        workload.tokenizer,
        seeded(config, make),
        make_accelerator(config, use_gpu=device.type == "cuda"),
        batch_size=config.batch.size,
        learning_rate=config.optim.learning_rate,
        weight_decay=config.optim.weight_decay,
        padded=way.padding == "max_length",
    )
    loop.train(_WARM_UP_STEPS)
    begin = now(device)
    num_windows = loop.train()
    return Timing(num_windows, now(device) - begin)


def _time_ours(
    config: Config, collator: Collator, precision: Precision, make: Callable[[], PreTrainedModel], device: torch.device
) -> Timing:
    config = _with(config, precision)
    model = seeded(config, make)
    loop = TrainingLoop(config, collator, model, make_accelerator(config, use_gpu=device.type == "cuda"))
    # The last batches of one epoch warm up, then all of the next are timed.
    loop.state.position = max(0, loop.num_steps // 2 - _WARM_UP_STEPS)
    loop.train_epoch()
    warm_up = loop.state.windows
    begin = now(device)
    loop.train_epoch()
    return Timing(loop.state.windows - warm_up, now(device) - begin)


def _with(config: Config, precision: Precision) -> Config:
    # Two epochs: one to warm up in, one to time.
    return replace(config, train=replace(config.train, precision=precision, epochs=2))


def seeded(config: Config, make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """A new model with its seed; after it a new accelerator may have another precision than the last."""
    AcceleratorState._reset_state(reset_partial_state=True)
    set_seed(config.train.seed)
    return make()


def _utilization(
    make: Callable[[], PreTrainedModel],
    collator: Collator,
    device: torch.device,
    standard: list[Timing],
    ours: list[Timing],
) -> dict[str, float]:
    """Share of the GPU's peak that the model's own arithmetic reaches, without that on padding."""
    peak, length = peak_flops(device), float(collator.windows.length.mean())
    if peak is None:
        return {}
    per_window = flops_per_token(make(), length) * length
    return {
        f"{side}_model_flops_utilization": per_window * speed(timings) / peak
        for side, timings in (("standard", standard), ("ours", ours))
    }


def spread_batches(lengths: Int64s, config: Config, num_batches: int) -> Int64s:
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
    items: Int64s = np.sort(by_length[place].ravel())
    return items


def _only(collator: Collator, items: Int64s) -> Collator:
    windows = collator.windows
    names = [field.name for field in fields(windows) if field.name != "cut_questions"]
    return replace(collator, windows=replace(windows, **{name: getattr(windows, name)[items] for name in names}))


def padding_shares(workload: Workload) -> dict[str, float]:
    """Padding tokens over all tokens in an epoch of all windows, for each way to batch them."""
    config, lengths = workload.config, workload.collator.windows.length
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
