"""The training job on the driver: check, tokenise, train on the cluster, and leave a run folder."""

import contextlib
import dataclasses
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from ray.train import CheckpointConfig, LoggingConfig, Result, ScalingConfig, WorkerGroupError
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchTrainer

from qa_ray.config import Config, flatten
from qa_ray.data.pipeline import Split, tokenize_split
from qa_ray.data.validation import write_problems
from qa_ray.errors import StorageError, TrainingError, UserError
from qa_ray.evaluation.evaluator import Evaluator
from qa_ray.model import check_model, check_window, learn_template, load_tokenizer
from qa_ray.policies import BestBy, NoAnswer
from qa_ray.storage import RunFolder
from qa_ray.tracking import Tracker, start_tracker
from qa_ray.training.checkpoint import EVALUATION, MODEL
from qa_ray.training.precision import choose_precision
from qa_ray.training.progress import Follower, start_stream
from qa_ray.training.resources import Resources, plan_resources
from qa_ray.training.worker import Job, make_collator, train_worker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """A validation question with its predicted and its reference answers."""

    question: str
    predicted: str
    references: list[str]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished run has to show."""

    folder: str
    """Path or URI of the run's folder."""
    before: Mapping[str, float] | None
    """Validation metrics before the first step, if they were asked for."""
    best: Mapping[str, float]
    """Validation metrics of the model that was kept."""
    examples: list[Example]
    record: str
    """How to look at the tracker's record."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A run that is ready to start."""

    config: Config
    folder: RunFolder
    job: Job
    resources: Resources


def train(config: Config) -> TrainResult:
    """Fine-tune a model on the Ray cluster that this process is connected to.

    Raises:
        UserError: something that the user can mend; no training has happened then, or it cannot go on.
    """
    resources = plan_resources(config.cluster)
    folder = RunFolder.create(config.run)
    try:
        prepared = _prepare(config, folder, resources)
        tracker = start_tracker(config.tracking, folder.name)
    except BaseException:
        # Nothing has been trained: the same command must work once the mistake is mended.
        folder.remove()
        raise
    # Importing torch and transformers on a busy machine takes longer than the minute that Ray allows.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    with _recorded(tracker, prepared):
        result, follower = _fit(prepared, tracker)
        return _conclude(prepared, result, follower, tracker)


def _prepare(config: Config, folder: RunFolder, resources: Resources) -> _Prepared:
    """Find every mistake that can be found before training starts."""
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
        train=splits["train"],
        validation=splits["validation"],
        template=template,
        no_answer=no_answer,
        num_threads=resources.cpus_per_worker,
        stream=start_stream(),
    )
    folder.write("config.json", json.dumps(dataclasses.asdict(config), indent=1).encode())
    _describe_data(job, folder)
    return _Prepared(config, folder, job, resources)


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


@contextlib.contextmanager
def _recorded(tracker: Tracker, prepared: _Prepared) -> Iterator[None]:
    """Keep the run's parameters, and whether it succeeded."""
    tracker.log_params(dict(flatten(prepared.config)))
    try:
        yield
    except BaseException:
        tracker.finish(succeeded=False)
        raise
    tracker.finish(succeeded=True)


def _fit(prepared: _Prepared, tracker: Tracker) -> tuple[Result, Follower]:
    """Train on the workers while the follower shows and keeps what rank 0 records."""
    resources, config = prepared.resources, prepared.config
    lowest = config.evaluate.best_by is BestBy.LOSS
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"job": prepared.job},
        scaling_config=ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.use_gpu,
            resources_per_worker={"CPU": resources.cpus_per_worker, **({"GPU": 1} if resources.use_gpu else {})},
        ),
        run_config=RayRunConfig(
            name=prepared.folder.name,
            storage_path=prepared.folder.storage_path,
            checkpoint_config=CheckpointConfig(
                num_to_keep=1,
                checkpoint_score_attribute=str(config.evaluate.best_by),
                checkpoint_score_order="min" if lowest else "max",
            ),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    with tempfile.TemporaryDirectory(prefix="qa_ray-") as place:
        metrics_file = Path(place) / "metrics.jsonl"
        try:
            with Follower(prepared.job.stream, metrics_file, tracker) as follower:
                result = trainer.fit()
        except WorkerGroupError as error:
            raise _cause(error, prepared.folder) from error
        finally:
            prepared.folder.write("metrics.jsonl", metrics_file.read_bytes())
    if isinstance(result.return_value, UserError):
        raise result.return_value
    return result, follower


def _cause(error: WorkerGroupError, folder: RunFolder) -> Exception:
    """The failure that the user can mend, if a worker met one."""
    for failure in error.worker_failures.values():
        cause = failure.__cause__ or failure
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, OSError):
            return StorageError(f"the run {folder.uri} cannot be written: {cause.strerror or cause}")
    again: Exception = error
    return again


def _train_worker(config: dict[str, Job]) -> UserError | None:
    return train_worker(config["job"])


def _conclude(prepared: _Prepared, result: Result, follower: Follower, tracker: Tracker) -> TrainResult:
    """Put the best model and its predictions into the run's folder."""
    if not result.best_checkpoints:
        raise TrainingError(f"the run {prepared.folder.name} ended without a model")
    folder = prepared.folder
    best_by = str(prepared.config.evaluate.best_by)
    choose = min if best_by == BestBy.LOSS else max
    checkpoint, metrics = choose(result.best_checkpoints, key=lambda pair: pair[1][best_by])
    for name in (MODEL, EVALUATION):
        folder.copy(checkpoint.filesystem, f"{checkpoint.path}/{name}", name)
    evaluation = folder.download(EVALUATION)
    tracker.log_folder(evaluation, EVALUATION)
    predictions = json.loads((evaluation / "predictions.json").read_text(encoding="utf-8"))
    return TrainResult(
        folder=folder.uri,
        before=follower.evaluations.get(0),
        best=follower.evaluations[metrics["step"]],
        examples=_examples(prepared.job.validation, predictions),
        record=tracker.where(),
    )


def _examples(split: Split, predictions: Mapping[str, str], num_examples: int = 6) -> list[Example]:
    """Questions spread evenly over the split."""
    corpus = split.corpus()
    step = max(1, len(corpus) // num_examples)
    return [
        Example(corpus.text(question), predictions[corpus.id(question)], corpus.references(question))
        for question in range(step // 2, len(corpus), step)
    ][:num_examples]
