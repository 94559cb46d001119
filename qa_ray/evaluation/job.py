"""The evaluation job on the driver: check models and data, evaluate on the cluster, and leave scores and a report."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers

from qa_ray.config.policies import NoAnswer
from qa_ray.data.pipeline import Split, tokenize_split
from qa_ray.data.validation import alarms, count_rows, write_problems
from qa_ray.errors import DataError, StorageError
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.evaluation.predictions import PredictionFile, Questions, read_predictions, read_questions
from qa_ray.evaluation.report import AGAINST, BAD_ROWS, EvaluationResult, Outcome, save_outcome
from qa_ray.evaluation.workers import EvaluationTask, evaluate_on_workers
from qa_ray.locations import absolute
from qa_ray.model.compute import answering_precision
from qa_ray.model.folder import open_for
from qa_ray.model.loading import learn_template
from qa_ray.runs.resources import Resources, plan_resources
from qa_ray.schema import Bools, Problem
from qa_ray.scores.intervals import Comparison, compare, require_same_questions
from qa_ray.storage.run_folder import EVALUATION, METRICS

logger = logging.getLogger(__name__)


def evaluate(options: EvaluationOptions) -> EvaluationResult:
    """Evaluate a model on the Ray cluster that this process is connected to, or predictions in a file without any.

    Raises:
        UserError: something that the user can mend; nearly all of it is found before the first forward pass.
    """
    _claim(options)
    tasks = _prepare_all(options)
    no_answer = options.no_answer is NoAnswer.ALLOWED or (
        options.no_answer is NoAnswer.AUTO and any(task.may_abstain for task in tasks)
    )
    require_same_questions(*(task.ids() for task in tasks))
    on_workers = [task for task in tasks if isinstance(task, EvaluationTask)]
    evaluated = iter(evaluate_on_workers(on_workers, no_answer=no_answer))
    outcomes: list[Outcome] = [
        task.score(no_answer=no_answer) if isinstance(task, PredictionFile) else next(evaluated) for task in tasks
    ]
    return _conclude(options, outcomes)


def _prepare_all(options: EvaluationOptions) -> list[EvaluationTask | PredictionFile]:
    """Read and check all that is compared, before anything is computed."""
    resources = _plan(options) if options.needs_cluster else None
    questions: Questions | None = None
    splits: dict[str, Split] = {}
    tasks: list[EvaluationTask | PredictionFile] = []
    for source, place in zip(options.sources, _places(options), strict=False):
        if isinstance(source, str):
            assert resources is not None
            tasks.append(_prepare(options, source, place, resources, splits))
            continue
        data = options.data_config(options.on_bad_row, options.impossible_answers)
        questions = questions or read_questions(data, options.data, options.max_examples)
        with _written(options.out):
            _tell_bad_rows(questions.problems, questions.answered, place / BAD_ROWS)
        own = source == options.predictions
        file = read_predictions(
            source,
            questions,
            null_odds=options.null_odds if own else None,
            threshold=options.no_answer_threshold if own else None,
            language=options.language,
        )
        tasks.append(file)
    return tasks


def _plan(options: EvaluationOptions) -> Resources:
    transformers.logging.disable_progress_bar()
    resources = plan_resources(options.cluster)
    if not resources.use_gpu:
        answering_precision(options.precision, torch.device("cpu"), "--precision")
    return resources


def _places(options: EvaluationOptions) -> tuple[Path, Path]:
    """The folders of the model's files, and of those of the one that it is compared with."""
    return options.out, options.out / AGAINST


def _claim(options: EvaluationOptions) -> None:
    """Find out whether results can be written before anything is computed."""
    folder = options.out
    files = [source for source in (*options.sources, options.null_odds) if isinstance(source, Path)]
    for file in files:
        if file.resolve().parent in [place.resolve() for place in _places(options)]:
            raise StorageError(f"--out={folder} would overwrite {file}, which is to be read: name another folder")
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


def _prepare(
    options: EvaluationOptions, name: str, place: Path, resources: Resources, splits: dict[str, Split]
) -> EvaluationTask:
    """Check a model, with its weights, and tokenise the questions for it; `place` takes the rows that are left out.

    What is tokenised joins `splits`, by its tokenizer: models that have the same one share it.
    """
    saved = open_for(options, name)
    config = options.configure(name, saved.settings)
    tokenizer, threshold = saved.tokenizer, saved.settings.no_answer_threshold
    template = learn_template(tokenizer, saved.model.config)
    # The workers load it for themselves.
    del saved
    definition = tokenizer.backend_tokenizer.to_str()
    if definition not in splits:
        splits[definition] = tokenize_split(
            config.data, options.data, max_examples=options.max_examples, tokenizer=definition
        )
    split = splits[definition]
    answered = split.corpus().answer_first >= 0
    with _written(options.out):
        _tell_bad_rows(split.problems, answered, place / BAD_ROWS)
    if not answered.any():
        raise DataError(f"{options.data} has no question with an answer: there is nothing to measure a model by")
    return EvaluationTask(
        config=config,
        model=absolute(name),
        split=split,
        template=template,
        threshold=threshold,
        resources=resources,
        int8=options.int8,
    )


def _tell_bad_rows(problems: Sequence[Problem], answered: Bools, file: Path) -> None:
    """Write why rows are left out, in place of an earlier evaluation; `answered` tells of the questions that stay."""
    file.unlink(missing_ok=True)
    if problems:
        file.parent.mkdir(exist_ok=True)
        write_problems(problems, file)
        logger.warning("%d rows cannot be used and were left out; %s says why", count_rows(problems), file)
        for alarm in alarms(problems, answered):
            logger.warning("%s", alarm)


def _conclude(options: EvaluationOptions, outcomes: list[Outcome]) -> EvaluationResult:
    draws = {"num_resamples": options.num_resamples, "seed": options.seed}
    first, *others = outcomes
    comparison: Comparison | None = None
    for other in others:
        comparison = compare(first.table, other.table, other.name, **draws)
    place, against = _places(options)
    with _written(place):
        for other in others:
            other.save(against)
        data = f"{options.hub}, {options.data}" if options.hub else options.data
        save_outcome(first, place, data=data, comparison=comparison, **draws)
    return EvaluationResult(models=outcomes, comparison=comparison, folder=options.out, **draws)
