"""Measure qa_ray against the standard way, side by side in one run, from featurising to batch answering.

python jobs/benchmark.py
python jobs/benchmark.py --cases featurise decode --data train-v1.1.json
python jobs/benchmark.py chaos --kills 100

`chaos` measures recovery instead: it kills workers, jobs and nodes of training runs; see `chaos --help`.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
import transformers
import tyro
from benchmarking import chaos
from benchmarking.checkpoints import checkpoints
from benchmarking.comparison import Material, Row, Run, interleave, machine, peak_memory_gb, restart_peak_memory, table
from benchmarking.decoding import decode
from benchmarking.driver import driver
from benchmarking.prediction import prediction
from benchmarking.standard import training_features
from benchmarking.training import padding_shares, train

from qa_ray.cli import exit_code
from qa_ray.config.recipes import minilm
from qa_ray.errors import ConfigError, StorageError


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
class Options:
    """Measure qa_ray against the standard way: datasets, transformers and accelerate, plainly used."""

    cases: tuple[Case, ...] = tuple(Case)
    """What is measured."""
    data: str = "package://qa_ray/data/sample/train.json"
    """Nested SQuAD JSON."""
    threads: int = 2
    """CPU threads that each way computes with; decoding takes one."""
    steps: int = 30
    """Training steps that are timed of each way, over all repeats together."""
    repeats: int = 3
    """Times that each way has its turn."""
    out: Path = Path("benchmark.json")
    """File that takes the results."""

    def __post_init__(self) -> None:
        for name in ("threads", "steps", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name}={getattr(self, name)} must be at least 1")

    @property
    def steps_per_repeat(self) -> int:
        """Training steps of one turn."""
        return max(1, self.steps // self.repeats)


def main() -> None:
    """Measure, print a table and write the results."""
    if sys.argv[1:2] == ["chaos"]:
        prog = f"{Path(sys.argv[0]).name} chaos"
        enums = (tyro.conf.EnumChoicesFromValues,)
        chaos.chaos(tyro.cli(chaos.Options, prog=prog, description=chaos.__doc__, args=sys.argv[2:], config=enums))
        return
    options = tyro.cli(Options, description=__doc__, config=(tyro.conf.EnumChoicesFromValues,))
    _prepare(options)
    report, rows = measure(options)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    for name, share in report.get("padding_share", {}).items():
        print(f"padding in an epoch, {name}: {share:.1%}")
    print(f"written to {options.out}")


def _prepare(options: Options) -> None:
    """Find out early whether the results can be written, and set threads and silence."""
    try:
        options.out.touch()
    except OSError as error:
        raise StorageError(f"--out={options.out} cannot be written: {error.strerror}") from error
    # Read by the Rust tokenizer's thread pool when it starts.
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    torch.set_num_threads(options.threads)
    pa.set_cpu_count(options.threads)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def measure(options: Options) -> tuple[dict[str, Any], list[Row]]:
    """Run the cases; returns the report, ready for JSON, and its rows.

    Raises:
        UserError: the data cannot be used.
    """
    recipe = minilm()
    # The standard way trains with dropout: so must ours.
    config = replace(recipe, model=replace(recipe.model, dropout=None))
    material = Material.read(config, options.data)
    report: dict[str, Any] = {
        "machine": machine(),
        "options": asdict(options) | {"out": str(options.out)},
        "recipe": asdict(material.config),
        "num_examples": len(material.rows),
        "num_windows": len(material.collator.windows),
    }
    rows, seconds, memory = [], {}, {}
    for case in options.cases:
        restart_peak_memory()
        begin = time.perf_counter()
        rows += _CASES[case](material, options)
        seconds[case] = time.perf_counter() - begin
        memory[case] = peak_memory_gb()
    if Case.TRAIN in options.cases:
        report["padding_share"] = padding_shares(material)
    rows_json = [row.as_dict() for row in rows]
    return report | {"case_seconds": seconds, "case_peak_memory_gb": memory, "rows": rows_json}, rows


def featurise(material: Material, repeats: int) -> list[Row]:
    """Examples to labelled windows; reading the JSON is not counted."""
    window, num_windows = material.config.window, len(material.collator.windows)

    def standard() -> Run:
        begin = time.perf_counter()
        features = training_features(material.rows, material.tokenizer, window.max_length, window.stride, pad=True)
        seconds = time.perf_counter() - begin
        if len(features) != num_windows:
            raise AssertionError(f"featurise: {len(features)} windows in the standard way, {num_windows} in ours")
        return Run(len(material.rows), seconds)

    def ours() -> Run:
        begin = time.perf_counter()
        corpus = material.featurise(material.passages).corpus
        return Run(len(corpus), time.perf_counter() - begin)

    runs = interleave("featurise", {"standard": standard, "ours": ours}, repeats)
    return [
        Row(
            case="featurise",
            standard="Dataset.map",
            ours="windows as views",
            unit="examples",
            standard_runs=runs["standard"],
            ours_runs=runs["ours"],
            goal=6.0,
        )
    ]


_CASES: dict[Case, Callable[[Material, Options], list[Row]]] = {
    Case.FEATURISE: lambda material, options: featurise(material, options.repeats),
    Case.TRAIN: lambda material, options: train(material, steps=options.steps_per_repeat, repeats=options.repeats),
    Case.DECODE: lambda material, options: decode(material, options.repeats),
    Case.CHECKPOINT: lambda material, options: checkpoints(
        material, steps=options.steps_per_repeat, repeats=options.repeats
    ),
    Case.DRIVER: lambda material, options: driver(
        material, steps=options.steps_per_repeat, repeats=options.repeats, threads=options.threads
    ),
    Case.PREDICT: lambda material, options: prediction(material, repeats=options.repeats, threads=options.threads),
}


if __name__ == "__main__":
    sys.exit(exit_code(main))
