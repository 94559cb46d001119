"""The benchmark job: run the cases, print a table, write the results."""

import logging
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import datasets
import pyarrow as pa
import ray
import torch

from qa_ray.benchmark.checkpoints import checkpoints
from qa_ray.benchmark.decoding import decode
from qa_ray.benchmark.driver import driver
from qa_ray.benchmark.featurising import featurise
from qa_ray.benchmark.options import BenchmarkOptions, Case
from qa_ray.benchmark.prediction import prediction
from qa_ray.benchmark.timing import Row, table
from qa_ray.benchmark.training import padding_shares, train
from qa_ray.benchmark.workload import Workload
from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import ClusterConfig
from qa_ray.config.recipes import minilm
from qa_ray.errors import StorageError
from qa_ray.model.compute import emulates_bf16
from qa_ray.runs.connection import start_ray
from qa_ray.runs.process import set_up_process
from qa_ray.storage.strict_json import to_json
from qa_ray.tracking.environment import describe_environment, versions

_NO_BF16 = "left out: bf16, for which this machine has no instructions"


def benchmark(options: BenchmarkOptions) -> str:
    """Measure and write the results; returns what is to be shown.

    Raises:
        UserError: the data cannot be used, or the results cannot be written.
    """
    _prepare(options)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = minilm()
    # What fits a CPU's caches would leave a GPU idle.
    limit = recipe.batch.max_tokens_per_device if device.type == "cpu" else None
    batch = replace(recipe.batch, size=options.batch_size, max_tokens_per_device=limit)
    report, rows = measure(options, replace(recipe, batch=batch), bf16=not emulates_bf16(device))
    options.out.write_text(to_json(report, indent=1) + "\n", encoding="utf-8")
    padding = [f"padding in an epoch, {name}: {share:.1%}" for name, share in report.get("padding_share", {}).items()]
    return "\n".join([table(rows), *padding, *report["notes"], f"written to {options.out}"])


def _prepare(options: BenchmarkOptions) -> None:
    """Find out early whether the results can be written, and set threads and silence."""
    try:
        options.out.touch()
    except OSError as error:
        raise StorageError(f"--out={options.out} cannot be written: {error.strerror}") from error
    # Read by the Rust tokenizer's thread pool when it starts.
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    # Both ways are given what a worker is given.
    set_up_process(options.threads)
    pa.set_cpu_count(options.threads)
    # What the timed runs have to say.
    logging.getLogger("qa_ray").setLevel(logging.WARNING)
    datasets.disable_progress_bars()


def measure(options: BenchmarkOptions, recipe: Config, *, bf16: bool) -> tuple[dict[str, Any], list[Row]]:
    """Run the cases; returns the report, ready for JSON, and its rows.

    Args:
        options: the cases, their size and their data.
        recipe: what is trained.
        bf16: whether the hardware computes in bf16; what needs it is left out otherwise.

    Raises:
        UserError: the data cannot be used.
    """
    # The standard way trains with dropout: so must ours.
    workload = Workload.read(replace(recipe, model=replace(recipe.model, dropout=None)), options.data)
    steps, repeats, threads = options.steps_per_repeat, options.repeats, options.threads
    cases: dict[Case, Callable[[], list[Row]]] = {
        Case.FEATURISE: lambda: featurise(workload, repeats),
        Case.TRAIN: lambda: train(workload, steps=steps, repeats=repeats, bf16=bf16),
        Case.DECODE: lambda: decode(workload, repeats),
        Case.CHECKPOINT: lambda: checkpoints(workload, steps=steps, repeats=repeats),
        Case.DRIVER: lambda: driver(workload, steps=steps, repeats=repeats, threads=threads),
        Case.PREDICT: lambda: prediction(workload, repeats=repeats, threads=threads, bf16=bf16),
    }
    rows: list[Row] = []
    for case in options.cases:
        if case in (Case.DRIVER, Case.PREDICT) and not ray.is_initialized():
            # Not earlier: its processes take time from the others.
            start_ray(ClusterConfig(local_cpus=threads))
        rows += cases[case]()
    report: dict[str, Any] = {
        "environment": describe_environment() | versions(("datasets",)) | {"load_average": os.getloadavg()[0]},
        "options": asdict(options) | {"out": str(options.out)},
        "recipe": asdict(workload.config),
        "num_examples": len(workload.rows),
        "num_windows": len(workload.collator.windows),
        "notes": [] if bf16 or not {Case.TRAIN, Case.PREDICT} & set(options.cases) else [_NO_BF16],
        "rows": [row.as_dict() for row in rows],
    }
    if Case.TRAIN in options.cases:
        report["padding_share"] = padding_shares(workload)
    return report, rows
