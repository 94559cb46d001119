"""A run before its first step: every mistake that can be found is found here, on the driver."""

import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import NoAnswer
from qa_ray.data.collate import Collator
from qa_ray.data.digests import shared_contexts
from qa_ray.data.pipeline import Split, tokenize_shares, tokenize_split
from qa_ray.data.validation import alarms, count_rows, write_problems
from qa_ray.data.windows import answer_notes, cut_note
from qa_ray.errors import DataError
from qa_ray.locations import absolute
from qa_ray.model.compute import choose_precision
from qa_ray.model.forward_check import check_training
from qa_ray.model.loading import check_model, check_window, learn_template, load_settings, load_tokenizer
from qa_ray.runs.fingerprint import Fingerprint, hold_to
from qa_ray.runs.resources import Resources, idle_note
from qa_ray.runs.stream import start_stream
from qa_ray.runs.worker import TrainingTask, make_collator
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.tracker import DataUse
from qa_ray.training.evaluations import check_evaluations
from qa_ray.training.evaluator import Evaluator

logger = logging.getLogger(__name__)

_SHOWN_CONTEXTS = 3


@dataclass(frozen=True, slots=True)
class Splits:
    """The tokenised data of a run; window and stride are no part of it, so runs of a search share it."""

    train: Split
    validation: Split

    @property
    def has_unanswerable(self) -> bool:
        """Whether some question in use has no answer."""
        return self.train.has_unanswerable or self.validation.has_unanswerable


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to start."""

    config: Config
    folder: RunFolder
    task: TrainingTask
    resources: Resources


def tokenize_data(data: DataConfig, tokenizer: FastTokenizer) -> Splits:
    """Read, validate and tokenise both splits.

    Raises:
        DataError: one of them cannot be used.
    """
    definition = tokenizer.backend_tokenizer.to_str()
    if data.validation_share is not None:
        splits = Splits(*tokenize_shares(data, definition))
        logger.info(
            "data.validation_share=%g: %d contexts of data.train are for training, %d for validation; data.validation "
            "is not read",
            data.validation_share,
            *(len(np.unique(split.context_keys)) for split in (splits.train, splits.validation)),
        )
    else:
        splits = Splits(
            tokenize_split(data, data.train, max_examples=data.max_train_examples, tokenizer=definition),
            tokenize_split(data, data.validation, max_examples=data.max_validation_examples, tokenizer=definition),
        )
    _warn(splits)
    return splits


def _warn(splits: Splits) -> None:
    """Tell what must not be overlooked of the data; a search tells it once."""
    for name, split in (("train", splits.train), ("validation", splits.validation)):
        for alarm in alarms(split.problems, split.corpus().answer_first >= 0) if split.problems else ():
            logger.warning("%s: %s", name, alarm)
    if overlap := overlap_note(splits.train, splits.validation, lambda place: splits.validation.corpus().record(place)):
        logger.warning("validation: %s", overlap)


def prepare(
    config: Config,
    folder: RunFolder,
    resources: Resources,
    *,
    owner: str,
    splits: Splits | None = None,
    stream: Any = None,
) -> Prepared:
    """Check model, windows and data, and tokenise; a run that goes on must find its data and tokens as they were.

    Args:
        config: the run's configuration.
        folder: the run's folder.
        resources: its workers.
        owner: names this job among all that ever worked on the run.
        splits: its data, if they are tokenised already.
        stream: an actor that takes what rank 0 records, if there is one already.

    Raises:
        UserError: something that would fail later.
    """
    if not resources.use_gpu:
        choose_precision(config.train.precision, torch.device("cpu"))
    if idle := idle_note(resources, config.batch.size):
        logger.warning("%s", idle)
    tokenizer = load_tokenizer(config.model)
    check_window(config.model, tokenizer, config.window.max_length)
    check_model(config.model, tokenizer)
    settings = load_settings(config.model)
    template = learn_template(tokenizer, settings)
    splits = splits or tokenize_data(config.data, tokenizer)
    found = Fingerprint.of(splits.train, splits.validation, template)
    hold_to(folder, [(config, found)], begun=bool(CheckpointStore(folder).names()))
    no_answer = config.evaluate.no_answer is NoAnswer.ALLOWED or (
        config.evaluate.no_answer is NoAnswer.AUTO and splits.has_unanswerable
    )
    model, own_tokenizer = config.model, config.model.tokenizer
    # Workers have a working directory of their own.
    model = replace(model, name=absolute(model.name), tokenizer=own_tokenizer and absolute(own_tokenizer))
    task = TrainingTask(
        config=replace(config, model=model),
        folder=folder,
        owner=owner,
        train=splits.train,
        validation=splits.validation,
        template=template,
        no_answer=no_answer,
        num_threads=resources.cpus_per_worker,
        stream=stream or start_stream(),
    )
    collators = _describe_data(task, folder)
    check_evaluations(config, len(collators[0].windows))
    check_training(config, settings, *collators)
    return Prepared(config, folder, task, resources)


def _describe_data(task: TrainingTask, folder: RunFolder) -> list[Collator]:
    """Say how much data there is, write down what was left out or cut, and refuse data that cannot be evaluated.

    Returns what makes the windows of both splits.
    """
    collators = []
    for name, split in (("train", task.train), ("validation", task.validation)):
        collator = make_collator(task.config, split.corpus(), task.template)
        collators.append(collator)
        corpus, windows = collator.corpus, collator.windows
        if name == "validation":
            _check_validation(task, collator)
        logger.info("%s: %d questions in %d windows", name, len(corpus), len(windows))
        if split.problems:
            _write_lines(folder, f"bad_rows_{name}.jsonl", split)
            logger.warning(
                "%s: %d rows cannot be used and were left out; bad_rows_%s.jsonl in the run's folder says why",
                name,
                count_rows(split.problems),
                name,
            )
        for note in data_notes(task.config, collator):
            logger.warning("%s: %s", name, note)
    return collators


def _check_validation(task: TrainingTask, collator: Collator) -> None:
    config, share = task.config, task.config.evaluate.share
    Evaluator(collator, config.evaluate, no_answer=task.no_answer)
    if share < 1:
        chosen = task.validation.corpus(share)
        if (chosen.answer_first < 0).all():
            raise DataError(f"evaluate.share={share}: none of the {len(chosen)} questions has an answer; take more")
        logger.info("validation: while the model trains, it is measured on %d of them", len(chosen))


def data_notes(config: Config, collator: Collator) -> list[str]:
    """What a run with these windows makes little or nothing of: answers out of reach, and questions that are cut."""
    corpus, windows = collator.corpus, collator.windows
    cut = cut_note(corpus, windows)
    return [*answer_notes(corpus, windows, config.evaluate.max_answer_length), *([cut] if cut else [])]


def overlap_note(train: Split, validation: Split, record: Callable[[int], str]) -> str | None:
    """What to tell of validation questions about contexts of the training data; `record` says where one was read."""
    questions = shared_contexts(validation.context_keys, train.context_keys)
    if not len(questions):
        return None
    _, firsts = np.unique(validation.context_keys[questions], return_index=True)
    shown_first = ", ".join(record(int(question)) for question in questions[np.sort(firsts)[:_SHOWN_CONTEXTS]])
    contexts = f"{len(firsts)} context{'s' if len(firsts) > 1 else ''}"
    return (
        f"{len(questions)} of {len(validation)} questions are about {contexts} of the training data: scores flatter. "
        f"First at {shown_first}; data.validation_share splits by context"
    )


def _write_lines(folder: RunFolder, name: str, split: Split) -> None:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        write_problems(split.problems, file.name)
        folder.write(name, Path(file.name).read_bytes())


_COLUMNS = {"id": "string", "context": "string", "question": "string", "answers": "string"}
# Set by Ray for a job that was submitted to a cluster.
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def tags(config: Config, train: Split, validation: Split) -> dict[str, str]:
    """What a run is found by: model, fingerprints of the data, Ray's job and, if it was submitted, its submission."""
    found = {
        "model.name": config.model.name,
        "model.revision": config.model.revision,
        "data.train.digest": train.digest,
        "data.validation.digest": validation.digest,
        "ray.job_id": ray.get_runtime_context().get_job_id(),
        "ray.submission_id": _submission_id(),
    }
    return {name: value for name, value in found.items() if value}


def data_uses(config: Config, train: Split, validation: Split) -> list[DataUse]:
    """The splits that a run reads."""
    hub = config.data.hub
    return [
        DataUse(
            name=f"{hub} {split.name}" if hub else os.path.basename(split.name.partition("?")[0].rstrip("/")),
            context=context,
            source=hub or split.name,
            on_hub=hub is not None,
            digest=split.digest,
            columns=_COLUMNS,
            profile={"num_questions": len(split), "num_rows_left_out": count_rows(split.problems)},
        )
        for context, split in (("training", train), ("validation", validation))
    ]


def _submission_id() -> str | None:
    job: dict[str, Any] = json.loads(os.environ.get(_JOB_CONFIG) or "{}")
    return (job.get("metadata") or {}).get("job_submission_id")
