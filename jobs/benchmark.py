"""Measure qa_ray against the standard way, side by side in one run: featurising, training, decoding, Ray's overhead.

python jobs/benchmark.py
python jobs/benchmark.py --cases featurise decode --data train-v1.1.json
"""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import ray
import torch
import transformers
import tyro
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from comparison import Material, Row, Run, interleave, machine, now, peak_memory_gb, restart_peak_memory, rows_of, speed
from comparison import table as as_table
from standard import StandardLoop, evaluation_features, postprocess, training_features
from transformers import BertConfig, BertForQuestionAnswering, PreTrainedModel

from qa_ray.cli import start_ray
from qa_ray.config import ClusterConfig, Config, DataConfig, RunConfig, TrackingConfig
from qa_ray.data.batching import Longs, padded_length, plan_epoch
from qa_ray.data.collate import Collator
from qa_ray.data.squad import to_squad
from qa_ray.errors import ConfigError, DataError, StorageError, UserError
from qa_ray.evaluation.decode import join_windows, window_candidates
from qa_ray.evaluation.results import NullSpans, assemble
from qa_ray.model import load_model
from qa_ray.policies import Precision
from qa_ray.recipes import minilm
from qa_ray.schema import Passage, Prediction
from qa_ray.tracking import TRAIN_LOSS, WINDOWS_PER_SECOND, Progress
from qa_ray.training.driver import train as train_on_ray
from qa_ray.training.loop import TrainingLoop
from qa_ray.training.throughput import flops_per_token, peak_flops
from qa_ray.training.worker import make_accelerator

# First steps pay for memory and kernels that later ones reuse.
_WARM_UP_STEPS = 4
_TIMED_EPOCHS_ON_RAY = 3
_MAX_DECODED_EXAMPLES = 1000
_MAX_LENGTH_PAD, _BATCH_PAD = "pad to max_length", "pad to the batch"


class Case(StrEnum):
    """What is measured."""

    FEATURISE = "featurise"
    TRAIN = "train"
    DECODE = "decode"
    DRIVER = "driver"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure qa_ray against the standard way: datasets, transformers and accelerate, plainly used."""

    cases: tuple[Case, ...] = tuple(Case)
    """What is measured."""
    data: str = "package://qa_ray/data/sample/train.json"
    """Nested SQuAD JSON."""
    threads: int = 2
    """CPU threads that each way computes with."""
    steps: int = 60
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


def featurise(material: Material, options: Options) -> list[Row]:
    """Examples to labelled windows."""
    window = material.config.window

    def standard() -> Run:
        begin = time.perf_counter()
        features = training_features(
            material.rows, material.tokenizer, window.max_length, window.stride, pad=True
        )
        seconds = time.perf_counter() - begin
        assert len(features) == len(material.collator.windows), "both ways must make the same windows"
        return Run(len(material.rows), seconds)

    def ours() -> Run:
        begin = time.perf_counter()
        corpus = material.featurise(material.passages).corpus
        return Run(len(corpus), time.perf_counter() - begin)

    runs = interleave("featurise", {"standard": standard, "ours": ours}, options.repeats)
    label = "Dataset.map, " + _MAX_LENGTH_PAD
    details = {"num_windows": len(material.collator.windows)}
    return [_row("featurise", (label, runs["standard"]), ("windows as views", runs["ours"]), "examples", 6, details)]


def _row(
    case: str,
    standard: tuple[str, list[Run]],
    ours: tuple[str, list[Run]],
    unit: str,
    goal: float | None = None,
    details: dict[str, float] | None = None,
) -> Row:
    return Row(
        case=case, standard=standard[0], ours=ours[0], unit=unit, standard_runs=standard[1], ours_runs=ours[1],
        goal=goal, details=details or {},
    )  # fmt: skip
