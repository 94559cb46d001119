"""What runs on each Ray Train worker: load, train, evaluate and report, epoch by epoch."""

import logging
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from ray import train
from transformers import PreTrainedModel

from qa_ray import tracking
from qa_ray.config import Config
from qa_ray.data.collate import Collator
from qa_ray.data.corpus import Corpus
from qa_ray.data.pipeline import Split
from qa_ray.data.template import Template
from qa_ray.data.windows import make_windows
from qa_ray.errors import StorageError, UserError
from qa_ray.evaluation.evaluator import Evaluator
from qa_ray.evaluation.results import Evaluation
from qa_ray.model import load_model, load_tokenizer
from qa_ray.tracking import EVAL_PREFIX, Progress, Record
from qa_ray.training.checkpoint import EVALUATION, MODEL, save_model
from qa_ray.training.loop import TrainingLoop
from qa_ray.training.precision import accelerate_name, choose_precision
from qa_ray.training.progress import Sender


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that a worker needs."""

    config: Config
    train: Split
    validation: Split
    template: Template
    no_answer: bool
    """Whether a prediction may be that there is no answer."""
    num_threads: int
    """CPU threads that torch computes with."""
    stream: Any
    """Actor that takes what rank 0 records."""


def train_worker(job: Job) -> UserError | None:
    """Train on this rank.

    An error that the user can mend is returned, since Ray prints the traceback of what is raised. All ranks meet it
    alike, but for a storage error: that strikes rank 0 alone, and the others would wait for it.
    """
    try:
        _train(job)
    except StorageError:
        raise
    except UserError as error:
        return error
    return None


def make_accelerator(config: Config, *, use_gpu: bool) -> Accelerator:
    """Accelerator of this rank, with the precision that its hardware computes in."""
    device = torch.device("cuda" if use_gpu else "cpu")
    precision = choose_precision(config.train.precision, device)
    return Accelerator(mixed_precision=accelerate_name(precision), cpu=not use_gpu)


def make_collator(config: Config, corpus: Corpus, template: Template) -> Collator:
    """Cut a corpus into windows, to be collated."""
    windows = make_windows(corpus, config.window, template)
    return Collator(corpus, windows, template, config.batch.pad_to_multiple_of, config.window.max_length)


def _train(job: Job) -> None:
    config = job.config
    torch.set_num_threads(job.num_threads)
    # Ranks would each print the same tables about the new head, between the lines of the progress bar.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    accelerator = make_accelerator(config, use_gpu=bool(ray.get_gpu_ids()))
    sender = Sender(job.stream)
    record: Record = sender if accelerator.is_main_process else tracking.ignore
    if accelerator.is_main_process:
        logging.getLogger("qa_ray").addHandler(sender)
    # The new head must be the same on every rank.
    set_seed(config.train.seed)
    model = load_model(config.model)
    loop = TrainingLoop(config, make_collator(config, job.train.corpus(), job.template), model, accelerator, record)
    evaluate = Evaluator(
        make_collator(config, job.validation.corpus(), job.template), config.evaluate, no_answer=job.no_answer
    )
    if config.evaluate.before_training:
        _record_evaluation(evaluate(loop.model, accelerator, record=record), loop.state.step, record)
    while not loop.finished:
        loop.train_epoch()
        result = evaluate(loop.model, accelerator, step=loop.state.step, record=record)
        memory = max(gather_object([_peak_memory_gb()]))
        _record_evaluation(result, loop.state.step, record, {tracking.PEAK_MEMORY_GB: memory})
        _report(result, config, model, loop.state.step)
    sender.flush()


def _record_evaluation(
    result: Evaluation | None, step: int, record: Record, further: dict[str, float] | None = None
) -> None:
    if result is not None:
        metrics = {f"{EVAL_PREFIX}{name}": float(value) for name, value in result.metrics.items()}
        record(Progress("evaluate", 1, 1, step, metrics | (further or {})))


def _report(result: Evaluation | None, config: Config, model: PreTrainedModel, step: int) -> None:
    """Report the epoch to Ray Train, with a checkpoint from rank 0; a barrier for all ranks."""
    if result is None:
        train.report({})
        return
    with tempfile.TemporaryDirectory(prefix="qa_ray-") as folder:
        save_model(Path(folder) / MODEL, model, load_tokenizer(config.model), config, result.metrics.get("threshold"))
        result.save(Path(folder) / EVALUATION)
        train.report({**result.metrics, "step": step}, checkpoint=train.Checkpoint.from_directory(folder))


def _peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in 10^9 bytes (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
