"""The evaluation job on the driver: check models and data, evaluate on the cluster, and leave scores and a report."""

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
import torch
import transformers
from ray.exceptions import RayActorError
from ray.train import TrainingFailedError

from qa_ray.answers.decode import Candidates
from qa_ray.answers.n_best import NullSpans
from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import NoAnswer
from qa_ray.data.pipeline import Split, tokenize_split
from qa_ray.data.template import Template
from qa_ray.data.validation import alarms, count_rows, write_problems
from qa_ray.data.windows import cut_note
from qa_ray.errors import ClusterError, DataError, ModelError, StorageError, UserError
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.evaluation.report import AGAINST, BAD_ROWS, EvaluatedModel, EvaluationResult, save_outcome
from qa_ray.locations import absolute, resolve
from qa_ray.model.compute import choose_precision
from qa_ray.model.folder import open_for, open_model
from qa_ray.model.loading import learn_template
from qa_ray.runs.driver import make_trainer, patience, worker_failures
from qa_ray.runs.outcome import raised, returned
from qa_ray.runs.ranks import on_all
from qa_ray.runs.resources import Resources, plan_resources
from qa_ray.runs.stream import Follower, StreamSender, start_stream
from qa_ray.runs.worker import make_accelerator, make_collator, set_up_process
from qa_ray.scores.intervals import Comparison, compare, require_same_questions
from qa_ray.scores.results import assemble
from qa_ray.storage.run_folder import EVALUATION, METRICS
from qa_ray.tracking.metrics import ignore
from qa_ray.tracking.tracker import Tracker
from qa_ray.training.evaluator import Evaluator

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTask:
    """All that a worker needs."""

    config: Config
    model: str
    """Where workers find it."""
    split: Split
    template: Template
    threshold: float | None
    """Saved with the model or given; None if there is none."""
    num_threads: int
    """CPU threads that torch computes with."""


@dataclass(frozen=True, slots=True)
class DecodedSplit:
    """What the workers found, without the texts that the driver has too."""

    candidates: Candidates
    null: NullSpans
    loss: float


def evaluate(options: EvaluationOptions) -> EvaluationResult:
    """Evaluate a model on the Ray cluster that this process is connected to.

    Raises:
        UserError: something that the user can mend; nearly all of it is found before the first forward pass.
    """
    _claim(options.out)
    transformers.logging.disable_progress_bar()
    resources = plan_resources(options.cluster)
    if not resources.use_gpu:
        choose_precision(options.precision, torch.device("cpu"), "--precision")
    names = [options.model] + ([options.against] if options.against else [])
    tasks = [_prepare(options, name, place, resources) for name, place in zip(names, _places(options), strict=False)]
    no_answer = options.no_answer is NoAnswer.ALLOWED or (
        options.no_answer is NoAnswer.AUTO
        and any(task.split.has_unanswerable or task.threshold is not None for task in tasks)
    )
    require_same_questions(*(task.split.corpus().ids() for task in tasks))
    outcomes = [_evaluate(task, resources, no_answer=no_answer) for task in tasks]
    return _conclude(options, outcomes)


def _places(options: EvaluationOptions) -> tuple[Path, Path]:
    """The folders of the model's files, and of those of the one that it is compared with."""
    return options.out, options.out / AGAINST


def _claim(folder: Path) -> None:
    """Find out whether results can be written before anything is computed."""
    if folder.name == EVALUATION and (folder.resolve().parent / METRICS).is_file():
        raise StorageError(
            f"--out={folder} is where a training run keeps its own predictions and scores: name another folder"
        )
    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into one that the user can mend."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"--out={folder} cannot be written: {error.strerror or error} (it must be a folder that you may write to)"
        ) from error


def _prepare(options: EvaluationOptions, name: str, place: Path, resources: Resources) -> EvaluationTask:
    """Check a model, with its weights, and tokenise the questions for it; `place` takes the rows that are left out."""
    saved = open_for(options, name)
    config = options.configure(name, saved.settings)
    tokenizer, threshold = saved.tokenizer, saved.settings.no_answer_threshold
    template = learn_template(tokenizer, saved.model.config)
    # The workers load it for themselves.
    del saved
    split = tokenize_split(
        config.data,
        options.data,
        max_examples=options.max_examples,
        tokenizer=tokenizer.backend_tokenizer.to_str(),
    )
    with _written(options.out):
        _tell_bad_rows(split, place / BAD_ROWS)
    if (split.corpus().answer_first < 0).all():
        raise DataError(f"{options.data} has no question with an answer: there is nothing to measure a model by")
    return EvaluationTask(
        config=config,
        model=absolute(name),
        split=split,
        template=template,
        threshold=threshold,
        num_threads=resources.cpus_per_worker,
    )


def _tell_bad_rows(split: Split, file: Path) -> None:
    """Write why rows are left out, in place of what an earlier evaluation wrote."""
    file.unlink(missing_ok=True)
    if split.problems:
        file.parent.mkdir(exist_ok=True)
        write_problems(split.problems, file)
        logger.warning("%d rows cannot be used and were left out; %s says why", count_rows(split.problems), file)
        for alarm in alarms(split.problems, split.corpus().answer_first >= 0):
            logger.warning("%s", alarm)


def _evaluate(task: EvaluationTask, resources: Resources, *, no_answer: bool) -> EvaluatedModel:
    """Evaluate one model on the workers, and score its answers here, where the texts are."""
    collator = make_collator(task.config, task.split.corpus(), task.template)
    corpus, windows = collator.corpus, collator.windows
    name = task.config.model.name
    logger.info("%s: %d questions in %d windows", name, len(corpus), len(windows))
    if note := cut_note(corpus, windows):
        logger.warning("%s: %s", name, note)
    found = _run(task, resources, no_answer=no_answer)
    threshold = task.threshold if no_answer else None
    evaluation = assemble(corpus, found.candidates, found.null, found.loss, no_answer=no_answer, threshold=threshold)
    return EvaluatedModel(
        name=name,
        config=task.config,
        evaluation=evaluation,
        corpus=corpus,
        windows=windows,
        history=run_history(name),
    )


def _run(task: EvaluationTask, resources: Resources, *, no_answer: bool) -> DecodedSplit:
    stream = start_stream()
    # Ray Train wants a folder even of those who store nothing.
    with tempfile.TemporaryDirectory(prefix="qa_ray-") as place:
        work = partial(_work, task, stream, no_answer)
        trainer = make_trainer(work, resources, task.config.cluster, name="evaluate", storage_path=place)
        with patience(resources), Follower(stream, lambda content: None, Tracker()):
            try:
                result: DecodedSplit = raised(trainer.fit().return_value)
            except TrainingFailedError as error:
                raise _cause(error) from error
    return result


def _cause(error: TrainingFailedError) -> Exception:
    """The failure that the user can mend, if a worker met one."""
    if any(isinstance(cause, RayActorError) for cause in worker_failures(error)):
        return ClusterError(
            "a worker process was lost, and cluster.max_failures is reached: its memory may have run out (lower "
            "--max-tokens-per-device), or its node is gone"
        )
    return cast(Exception, error)


def _work(task: EvaluationTask, stream: Any, no_answer: bool) -> DecodedSplit | UserError | None:
    """Evaluate this rank's share; rank 0 returns what all have found."""
    return returned(lambda: _evaluate_share(task, stream, no_answer))


def _evaluate_share(task: EvaluationTask, stream: Any, no_answer: bool) -> DecodedSplit | None:
    set_up_process(task.num_threads)
    accelerator = make_accelerator(task.config, use_gpu=bool(ray.get_gpu_ids()))
    saved = on_all(lambda: open_model(task.model, trust_remote_code=task.config.model.trust_remote_code))
    collator = make_collator(task.config, task.split.corpus(), task.template)
    evaluator = Evaluator(collator, task.config.evaluate, no_answer=no_answer)
    sender = StreamSender(stream)
    # Without a wrapper for gradients, but with the precision.
    model = accelerator.prepare_model(saved.model, evaluation_mode=True)
    try:
        result = evaluator(model, accelerator, record=sender if accelerator.is_main_process else ignore)
    except ModelError as error:
        raise ModelError(f"{task.config.model.name}: {error}") from error
    sender.flush()
    if result is None:
        return None
    return DecodedSplit(result.spans.candidates, result.spans.null, result.metrics["loss"])


def run_history(name: str) -> list[dict[str, Any]]:
    """Lines of the metrics.jsonl of the run that a model lies in, if it does: those that tell of a step."""
    folder = Path(resolve(name))
    file = next((place / METRICS for place in (folder, folder.parent) if (place / METRICS).is_file()), None)
    try:
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file else []
        return [line for line in lines if isinstance(line, dict) and "step" in line]
    except (OSError, ValueError):
        logger.warning("%s cannot be read: the report is without learning curves", file)
        return []


def _conclude(options: EvaluationOptions, outcomes: list[EvaluatedModel]) -> EvaluationResult:
    draws = {"num_resamples": options.num_resamples, "seed": options.seed}
    first, *others = outcomes
    comparison: Comparison | None = None
    for other in others:
        comparison = compare(first.table, other.table, other.name, **draws)
    place, against = _places(options)
    with _written(place):
        for other in others:
            other.evaluation.save(against)
        save_outcome(first, place, data=options.data, comparison=comparison, **draws)
    return EvaluationResult(models=outcomes, comparison=comparison, folder=options.out, **draws)
