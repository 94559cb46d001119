"""A run before its first step: every mistake that can be found is found here, on the driver."""

import logging
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import torch

from qa_ray.config import Config
from qa_ray.data.pipeline import Split, tokenize_split
from qa_ray.data.validation import write_problems
from qa_ray.evaluation.evaluator import Evaluator
from qa_ray.model import check_model, check_window, learn_template, load_tokenizer
from qa_ray.policies import NoAnswer
from qa_ray.storage import RunFolder
from qa_ray.training.precision import choose_precision
from qa_ray.training.progress import start_stream
from qa_ray.training.resources import Resources
from qa_ray.training.worker import Job, make_collator

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to start."""

    config: Config
    folder: RunFolder
    job: Job
    resources: Resources


def prepare(config: Config, folder: RunFolder, resources: Resources) -> Prepared:
    """Check model, windows and data, and tokenise.

    Raises:
        UserError: something that would fail later.
    """
    if not resources.use_gpu:
        choose_precision(config.train.precision, torch.device("cpu"))
    tokenizer = load_tokenizer(config.model)
    check_window(config.model, tokenizer, config.window.max_length)
    check_model(config.model, tokenizer)
    template = learn_template(tokenizer)
    definition = tokenizer.backend_tokenizer.to_str()
    splits = {}
    for name, limit in (
        ("train", config.data.max_train_examples),
        ("validation", config.data.max_validation_examples),
    ):
        location = getattr(config.data, name)
        splits[name] = tokenize_split(config.data, location, max_examples=limit, tokenizer=definition)
    no_answer = config.evaluate.no_answer is NoAnswer.ALLOWED or (
        config.evaluate.no_answer is NoAnswer.AUTO and any(split.has_unanswerable for split in splits.values())
    )
    job = Job(
        config=config,
        folder=folder,
        owner=uuid.uuid4().hex,
        train=splits["train"],
        validation=splits["validation"],
        template=template,
        no_answer=no_answer,
        num_threads=resources.cpus_per_worker,
        stream=start_stream(),
    )
    _describe_data(job, folder)
    return Prepared(config, folder, job, resources)


def _describe_data(job: Job, folder: RunFolder) -> None:
    """Say how much data there is, write down what was left out or cut, and refuse data that cannot be evaluated."""
    for name, split in (("train", job.train), ("validation", job.validation)):
        collator = make_collator(job.config, split.corpus(), job.template)
        corpus, windows = collator.corpus, collator.windows
        if name == "validation":
            Evaluator(collator, job.config.evaluate, no_answer=job.no_answer)
        logger.info("%s: %d questions in %d windows", name, len(corpus), len(windows))
        if split.problems:
            _write_lines(folder, f"bad_rows_{name}.jsonl", split)
            logger.warning(
                "%s: %d rows cannot be used and were left out; bad_rows_%s.jsonl in the run's folder says why",
                name,
                len(split.problems),
                name,
            )
        for question in windows.cut_questions[:5].tolist():
            logger.warning(
                "%s: question %s has %d tokens and leaves no room for window.stride=%d: only its first %d are used",
                name,
                corpus.id(question),
                corpus.question_lengths[question],
                job.config.window.stride,
                windows.question_length[windows.question == question][0],
            )
        if len(windows.cut_questions) > 5:
            logger.warning("%s: so it is with %d questions in all", name, len(windows.cut_questions))


def _write_lines(folder: RunFolder, name: str, split: Split) -> None:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        write_problems(split.problems, file.name)
        folder.write(name, Path(file.name).read_bytes())
