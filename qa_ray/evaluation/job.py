"""The evaluation job on the driver: check models and data, evaluate on the cluster, and leave scores and a report."""

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
import transformers
from accelerate.utils import gather_object
from ray.exceptions import RayActorError
from ray.train import FailureConfig, LoggingConfig, TrainingFailedError
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchTrainer
from transformers import PreTrainedModel

from qa_ray.answers.decode import Candidates
from qa_ray.answers.n_best import NullSpans
from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import NoAnswer
from qa_ray.data.pipeline import Split, tokenize_split
from qa_ray.data.template import Template
from qa_ray.data.validation import write_problems
from qa_ray.errors import ClusterError, DataError, ModelError, StorageError, UserError
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.evaluation.report import EvaluatedModel, save_outcome, summary
from qa_ray.locations import absolute, resolve
from qa_ray.model.folder import open_for, open_model
from qa_ray.model.loading import learn_template
from qa_ray.model.precision import choose_precision
from qa_ray.runs.driver import patience, scaling_config, worker_failures
from qa_ray.runs.resources import Resources, plan_resources
from qa_ray.runs.stream import Follower, StreamSender, start_stream
from qa_ray.runs.worker import make_accelerator, make_collator, set_up_process
from qa_ray.scores.comparison import Comparison, compare, require_same_questions
from qa_ray.scores.results import assemble
from qa_ray.storage.layout import EVALUATION
from qa_ray.tracking.metrics import ignore
from qa_ray.tracking.tracker import NullTracker
from qa_ray.training.evaluator import Evaluator

logger = logging.getLogger(__name__)

_HISTORY = "metrics.jsonl"
"""What a training run records by step, in its folder."""


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


def evaluate(options: EvaluationOptions) -> str:
    """Evaluate a model on the Ray cluster that this process is connected to; returns what is to be shown.

    Raises:
        UserError: something that the user can mend; nearly all of it is found before the first forward pass.
    """
    _claim(options.out)
    transformers.logging.disable_progress_bar()
    resources = plan_resources(options.cluster)
    if not resources.use_gpu:
        choose_precision(options.precision, torch.device("cpu"), "--precision")
    names = [options.model] + ([options.against] if options.against else [])
    tasks = [_prepare(options, name, resources) for name in names]
    no_answer = options.no_answer is NoAnswer.ALLOWED or (
        options.no_answer is NoAnswer.AUTO
        and any(task.split.has_unanswerable or task.threshold is not None for task in tasks)
    )
    require_same_questions(*(task.split.corpus().ids() for task in tasks))
    outcomes = [_evaluate(task, resources, no_answer=no_answer) for task in tasks]
    return _conclude(options, outcomes)


def _claim(folder: Path) -> None:
    """Find out whether results can be written before anything is computed."""
    if folder.name == EVALUATION and (folder.resolve().parent / _HISTORY).is_file():
        raise StorageError(
            f"--out={folder} is where a training run keeps its own predictions and scores: name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"--out={folder} cannot be written: {error.strerror or error} (it must be a folder that you may write to)"
        ) from error


def _prepare(options: EvaluationOptions, name: str, resources: Resources) -> EvaluationTask:
    """Check a model, with its weights, and tokenise the questions for it."""
    saved = open_for(options, name)
    config = options.configure(name, saved.settings)
    tokenizer, threshold = saved.tokenizer, saved.settings.no_answer_threshold
    # The workers load it for themselves.
    del saved
    split = tokenize_split(
        config.data,
        options.data,
        max_examples=options.max_examples,
        tokenizer=tokenizer.backend_tokenizer.to_str(),
    )
    if split.problems:
        write_problems(split.problems, str(options.out / "bad_rows.jsonl"))
        logger.warning("%d rows cannot be used and were left out; bad_rows.jsonl says why", len(split.problems))
    if (split.corpus().answer_first < 0).all():
        raise DataError(f"{options.data} has no question with an answer: there is nothing to measure a model by")
    return EvaluationTask(
        config=config,
        model=absolute(name),
        split=split,
        template=learn_template(tokenizer),
        threshold=threshold,
        num_threads=resources.cpus_per_worker,
    )


def _evaluate(task: EvaluationTask, resources: Resources, *, no_answer: bool) -> EvaluatedModel:
    """Evaluate one model on the workers, and score its answers here, where the texts are."""
    collator = make_collator(task.config, task.split.corpus(), task.template)
    corpus, windows = collator.corpus, collator.windows
    name = task.config.model.name
    logger.info("%s: %d questions in %d windows", name, len(corpus), len(windows))
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
        trainer = TorchTrainer(
            _work,
            train_loop_config={"task": task, "stream": stream, "no_answer": no_answer},
            scaling_config=scaling_config(resources, task.config.cluster),
            run_config=RayRunConfig(
                name="evaluate",
                storage_path=place,
                failure_config=FailureConfig(max_failures=task.config.cluster.max_failures),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )
        with patience(resources), Follower(stream, lambda content: None, NullTracker()):
            try:
                result = trainer.fit().return_value
            except TrainingFailedError as error:
                raise _cause(error) from error
    if isinstance(result, UserError):
        raise result
    found: DecodedSplit = result
    return found


def _cause(error: TrainingFailedError) -> Exception:
    """The failure that the user can mend, if a worker met one."""
    if any(isinstance(cause, RayActorError) for cause in worker_failures(error)):
        return ClusterError(
            "a worker process was lost, and cluster.max_failures is reached: its memory may have run out (lower "
            "--max-tokens-per-device), or its node is gone"
        )
    again: Exception = error
    return again


def _work(config: dict[str, Any]) -> DecodedSplit | UserError | None:
    """Evaluate this rank's share; rank 0 returns what all have found."""
    task: EvaluationTask = config["task"]
    set_up_process(task.num_threads)
    accelerator = make_accelerator(task.config, use_gpu=bool(ray.get_gpu_ids()))
    loaded = _load(task)
    # A rank that gave up by itself would leave the others waiting for its share.
    failures = [failure for failure in gather_object([loaded if isinstance(loaded, UserError) else None]) if failure]
    if failures or isinstance(loaded, UserError):
        failure: UserError = failures[0]
        return failure
    collator = make_collator(task.config, task.split.corpus(), task.template)
    evaluator = Evaluator(collator, task.config.evaluate, no_answer=config["no_answer"])
    sender = StreamSender(config["stream"])
    # Without a wrapper for gradients, but with the precision.
    model = accelerator.prepare_model(loaded, evaluation_mode=True)
    result = evaluator(model, accelerator, record=sender if accelerator.is_main_process else ignore)
    sender.flush()
    if result is None:
        return None
    return DecodedSplit(result.spans.candidates, result.spans.null, result.metrics["loss"])


def _load(task: EvaluationTask) -> PreTrainedModel | UserError:
    try:
        return open_model(task.model, trust_remote_code=task.config.model.trust_remote_code).model
    except UserError as error:
        return ModelError(f"node {ray.util.get_node_ip_address()}: {error}")


def run_history(name: str) -> list[dict[str, Any]]:
    """Lines of the metrics.jsonl of the run that a model lies in, if it does: those that tell of a step."""
    folder = Path(resolve(name))
    file = next((place / _HISTORY for place in (folder, folder.parent) if (place / _HISTORY).is_file()), None)
    try:
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file else []
        return [line for line in lines if isinstance(line, dict) and "step" in line]
    except (OSError, ValueError):
        logger.warning("%s cannot be read: the report is without learning curves", file)
        return []


def _conclude(options: EvaluationOptions, outcomes: list[EvaluatedModel]) -> str:
    draws = {"num_resamples": options.num_resamples, "seed": options.seed}
    first, *others = outcomes
    comparison: Comparison | None = None
    for other in others:
        comparison = compare(first.table, other.table, other.name, **draws)
    try:
        for other in others:
            other.evaluation.save(options.out / "against")
        save_outcome(first, options.out, data=options.data, comparison=comparison, **draws)
    except OSError as error:
        raise StorageError(f"--out={options.out} cannot be written: {error.strerror or error}") from error
    return summary(outcomes, comparison, options.out, **draws)
