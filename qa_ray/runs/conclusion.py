"""The end of a run on the driver: the best model's files, its report, its place in MLflow, and all of it in words."""

import dataclasses
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from functools import partial

from qa_ray.answers.marking import takes_colour
from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import BestBy, Language
from qa_ray.errors import StorageError, TrainingError
from qa_ray.locations import is_local, within
from qa_ray.model.folder import SETTINGS
from qa_ray.pages.report import render
from qa_ray.runs.examples import choose_examples, shown
from qa_ray.runs.outcome import Outcome
from qa_ray.runs.preparation import Prepared
from qa_ray.runs.resume import TrainResult
from qa_ray.runs.worker import make_collator
from qa_ray.scores.intervals import headline_scores
from qa_ray.scores.question_table import QuestionTable, tabulate
from qa_ray.scores.results import Evaluation
from qa_ray.storage.run_folder import (
    CHECKPOINTS,
    EVALUATION,
    INTERVALS,
    METRICS,
    MODEL,
    REPORT,
    RunFolder,
    checkpoint_name,
)
from qa_ray.storage.strict_json import to_json
from qa_ray.tracking.metrics import EVAL_PREFIX, lines_of
from qa_ray.tracking.tracker import Candidate, Tracker

logger = logging.getLogger(__name__)

_QUESTION = "Who wrote Frankenstein?"
_TEXT = "Dracula was written by Bram Stoker. The author of Frankenstein is Mary Shelley."


def conclude(prepared: Prepared, outcome: Outcome, tracker: Tracker) -> TrainResult:
    """Put the best model, its predictions and its report into the run's folder, which is finished then.

    Args:
        prepared: the run.
        outcome: how it ended on rank 0.
        tracker: takes the folder of the predictions.

    Raises:
        TrainingError: the run has no model.
        StorageError: its folder cannot be written.
    """
    if outcome.best_step is None:
        raise TrainingError(f"the run {prepared.folder.name} ended without a model")
    folder, evaluations = prepared.folder, outcome.evaluations
    # What was shown meanwhile may lack something; the workers know all.
    folder.write(METRICS, lines_of(outcome.history))
    filesystem, path = folder.filesystem()
    measured_again = prepared.config.evaluate.share < 1
    for name in (MODEL,) if measured_again else (MODEL, EVALUATION):
        folder.copy(filesystem, f"{path}/{CHECKPOINTS}/{checkpoint_name(outcome.best_step)}/{name}", name)
    best = evaluations[outcome.best_step]
    if measured_again:
        # The model was saved with the threshold of the share.
        settings = json.loads(folder.read(f"{MODEL}/{SETTINGS}") or b"{}")
        settings["no_answer_threshold"] = best.get(f"{EVAL_PREFIX}threshold")
        folder.write(f"{MODEL}/{SETTINGS}", (json.dumps(settings, indent=1) + "\n").encode())
    table = _report(prepared)
    tracker.log_folder(partial(folder.local, EVALUATION), EVALUATION)
    result = TrainResult(
        folder=folder.uri,
        epochs=prepared.config.train.epochs,
        step=outcome.best_step,
        before=evaluations.get(0),
        best=best,
        examples=choose_examples(table),
        record=tracker.where(),
        ledger=outcome.ledger,
        data=prepared.task.validation.digest,
    )
    result.save(folder)
    return result


def keep_model(result: TrainResult, config: Config, folder: RunFolder, tracker: Tracker) -> TrainResult:
    """Log the run's model in MLflow, and register it, as far as that is asked for and has not been done.

    A server that cannot be reached is told in a line: the run is finished all the same, and the same command does the
    rest later.
    """
    if not is_wanting(result, config):
        return result
    try:
        if result.logged_model is None:
            with folder.local(MODEL) as model:
                result = dataclasses.replace(result, logged_model=tracker.log_model(model, result.step))
        if config.tracking.registered_model is not None and result.logged_model is not None:
            metric = BestBy.F1 if config.evaluate.best_by is BestBy.LOSS else config.evaluate.best_by
            score = result.best[EVAL_PREFIX + metric]
            language = config.evaluate.language
            # Scores by different rules are not compared.
            name = str(metric) if language is Language.SQUAD else f"{metric} ({language})"
            candidate = Candidate(uri=result.logged_model, metric=name, score=score, data=result.data)
            text = tracker.register(config.tracking.registered_model, candidate)
            result = dataclasses.replace(result, registered=text)
    except StorageError as error:
        logger.warning("%s. The model is in the run's folder; the same command tries again", error)
    result.save(folder)
    return result


def is_wanting(result: TrainResult, config: Config) -> bool:
    """Whether MLflow has not got all of a finished run that it should have."""
    tracking = config.tracking
    unregistered = tracking.registered_model is not None and result.registered is None
    return tracking.enabled and tracking.log_model and (result.logged_model is None or unregistered)


def _report(prepared: Prepared) -> QuestionTable:
    """Write the report of the model that was kept, from what its evaluation left."""
    task, config, folder = prepared.task, prepared.config, prepared.folder
    collator = make_collator(config, task.validation.corpus(), task.template)
    with folder.local(EVALUATION) as files:
        evaluation = Evaluation.load(files, collator.corpus)
    train, validation = task.train, task.validation
    table = tabulate(evaluation, collator.corpus, collator.windows)
    scores = headline_scores(table)
    folder.write(INTERVALS, to_json({name: score._asdict() for name, score in scores.items()}, indent=1).encode())
    page = render(
        table,
        evaluation.metrics,
        title=f"{folder.name}: {config.model.name} on {validation.name}",
        scores=scores,
        history=[json.loads(line) for line in (folder.read(METRICS) or b"").splitlines()],
        facts={
            "Run": folder.name,
            "Model": config.model.name,
            "Trained on": f"{train.name}, {len(train):,} questions",
            "Measured on": f"{validation.name}, {len(validation):,} questions in {len(collator.windows):,} windows",
            "Window": f"{config.window.max_length} tokens, {config.window.stride} of them shared",
        },
    )
    folder.write(REPORT, page.encode())
    return table


def summary(result: TrainResult) -> str:
    """Some answers, the scores before and after, where everything lies, and how to ask the model."""
    colour = takes_colour(sys.stdout)
    lines = []
    if not result.trained_now:
        lines = ["", "This run was finished before: nothing was trained. For a new one choose another --run.name;"]
        lines += [f"for more epochs than {result.epochs} set --train.epochs."]
    lines += ["", "Some validation questions, and what the model answers:"]
    for example in result.examples:
        lines += shown(example, colour=colour)
    lines += ["", *_scores(result.before, result.best), ""]
    lines += [
        f"run     {result.folder}",
        f"model   {within(result.folder, MODEL)}",
        f"answers {within(result.folder, f'{EVALUATION}/predictions.json')}",
        f"report  {within(result.folder, REPORT)}",
        f"MLflow  {result.record}",
    ]
    lines += [f"        {text}" for text in (result.logged_model, result.registered) if text]
    model = result.folder if is_local(result.folder) else result.logged_model
    return "\n".join([*lines, *(["", "Ask the model a question:", f"  {_command(model)}"] if model else [])])


def _command(model: str) -> str:
    """A command that asks a model, to be pasted into the shell that trained it."""
    # `make train` has not put the environment's scripts on the path.
    program = "qa-ray" if shutil.which("qa-ray") else os.path.join(os.path.dirname(sys.executable), "qa-ray")
    return " ".join(map(shlex.quote, [_beside(program), "ask", _beside(model), _QUESTION, "--text", _TEXT]))


def _beside(place: str) -> str:
    """A path as it is written in the working directory, if it lies below it."""
    return place.removeprefix(os.getcwd() + os.sep)


def _scores(before: Mapping[str, float] | None, best: Mapping[str, float]) -> list[str]:
    names = [name for name in ("exact_match", "f1", "HasAns_f1", "NoAns_f1") if EVAL_PREFIX + name in best]
    head = f"{'':<10}" + "".join(f"{name:>14}" for name in names)
    rows = [("before", before)] if before else []
    rows += [("after", best)]
    return [head] + [
        f"{label:<10}" + "".join(f"{row[EVAL_PREFIX + name]:14.2f}" for name in names) for label, row in rows
    ]
