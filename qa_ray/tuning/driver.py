"""A sweep on its driver: tokenise once, run the trials, keep the best model, and leave a report."""

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ray

from qa_ray.config.fields import flatten
from qa_ray.config.policies import Resume
from qa_ray.errors import ConfigError, StoppedError, StorageError, TrainingError
from qa_ray.locations import within
from qa_ray.pages.view import Report
from qa_ray.runs.driver import train
from qa_ray.runs.fingerprint import hold_to
from qa_ray.runs.resources import plan_resources
from qa_ray.runs.resume import check_unchanged
from qa_ray.runs.signals import Interruptible
from qa_ray.runs.stream import start_stream
from qa_ray.storage.ownership import create
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.recording import send_owed, start_tracker
from qa_ray.tracking.tracker import PARENT, RunStatus, Tracker, TrialEntry
from qa_ray.tuning.lent import lend
from qa_ray.tuning.live_report import LiveReport
from qa_ray.tuning.options import SweepConfig
from qa_ray.tuning.report import REPORT, render
from qa_ray.tuning.space import Parameters, apply, read_space, written
from qa_ray.tuning.study import Study
from qa_ray.tuning.sweep import run_trials, trials_at_once
from qa_ray.tuning.tokenized import key_of, tokenize_all
from qa_ray.tuning.trial import Shared, trial_config, trial_place
from qa_ray.tuning.trials import TRIALS, Status, Sweep, SweepResult, TrialRecord
from qa_ray.tuning.view import SweepView

logger = logging.getLogger(__name__)

SWEEP = "sweep.json"
"""Configuration, space and options, in the sweep's folder."""
_STATUS = {Status.FINISHED: RunStatus.FINISHED, Status.FAILED: RunStatus.FAILED}
# What may change when a sweep goes on; the rest makes scores that cannot be compared.
_MAY_CHANGE = (
    "num_trials",
    "repeats",
    "finalists",
    "sampler",
    "max_failures",
    "max_concurrent",
    "hours",
    "keep_checkpoints",
)


def search(config: SweepConfig) -> SweepResult:
    """Search the space of `config` on the Ray cluster that this process is connected to.

    A sweep that was begun before goes on; of one that is finished the result is shown. The best trial's model is
    logged and registered in MLflow as that of a single run would be.

    Raises:
        UserError: something that the user can mend; no trial has begun then, or none has finished.
        StoppedError: a signal stopped the sweep; its trials have saved.
    """
    study = _open(config)
    tracker = _start_tracker(study)
    status = RunStatus.FAILED
    try:
        if not study.finished:
            _run(study, tracker)
        result = _conclude(study, tracker)
        status = RunStatus.FINISHED
        return result
    except StoppedError:
        status = RunStatus.KILLED
        raise
    finally:
        tracker.finish(status)


def _open(config: SweepConfig) -> Study:
    study = Study(config)
    folder, settings = study.folder, _settings(config)
    begun = folder.exists()
    if begun:
        _check_same(settings, config, folder)
    elif config.run.resume is Resume.REQUIRED:
        raise StorageError(
            f"run.resume=required, but there is no sweep run.name={folder.name} in {folder.storage_path}"
        )
    plan_resources(config.cluster)
    written = json.dumps(settings, indent=1).encode()
    if begun:
        folder.write(SWEEP, written)
    else:
        create(folder, uuid.uuid4().hex, {SWEEP: written})
    return study


def _settings(config: SweepConfig) -> dict[str, Any]:
    """What a sweep is known by, as JSON knows it: tuples are lists there."""
    space = {field: written(domain) for field, domain in read_space(config.space).items()}
    settings = {"config": dataclasses.asdict(config.base), "space": space, "tune": dataclasses.asdict(config.tune)}
    known: dict[str, Any] = json.loads(json.dumps(settings))
    return known


def _check_same(settings: dict[str, Any], config: SweepConfig, folder: RunFolder) -> None:
    """Refuse to go on with a sweep whose scores would not be comparable, or with what is none."""
    if config.run.resume is Resume.NEVER:
        raise StorageError(f"run.name={folder.name}: {folder.uri} exists: choose another name, or remove it")
    recorded = json.loads(folder.read(SWEEP) or "{}")
    if not recorded:
        raise StorageError(f"run.name={folder.name}: {folder.uri} exists and is no sweep: choose another name")
    if folder.read(TRIALS) is None:
        return  # nothing was tried: a mistake that kept the first trial from beginning may be mended
    check_unchanged(recorded["config"], config.base)
    before, now = (
        {"epochs": one["config"]["train"]["epochs"], "space": one["space"], **one["tune"]}
        for one in (recorded, settings)
    )
    changed = [f"{name}: {before[name]} -> {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
    refused = [text for text in changed if text.partition(":")[0] not in _MAY_CHANGE]
    if refused:
        raise ConfigError(
            f"the sweep {folder.name} was begun with other settings ({'; '.join(refused)}): set them as they were to "
            "go on, or choose another run.name for a new sweep"
        )


def _start_tracker(study: Study) -> Tracker:
    config, folder = study.config, study.folder
    settings = {name: values for name, values in _settings(config).items() if name != "config"}
    params = dict(flatten(config.base)) | dict(flatten(settings))
    tags = {"sweep": folder.name, "model.name": config.model.name}
    return start_tracker(config.tracking, folder, params=params, tags=tags)


def _run(study: Study, tracker: Tracker) -> None:
    """Run all trials that are left."""
    config, base = study.config, study.config.base
    tokenized = tokenize_all(base, read_space(config.space))
    uses = [(apply(base, dict(key)), data.fingerprint) for key, data in tokenized.items()]
    hold_to(study.folder, uses, begun=bool(study.sweep.trials))
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    at_once = trials_at_once(config.tune, plan_resources(config.cluster), nodes)
    logger.info("%d trials of up to %d epochs, %d at once", config.tune.num_trials, config.train.epochs, at_once)
    stream = start_stream()
    stop = Interruptible(lambda: _ask_to_stop(stream))

    def why_infeasible(parameters: Parameters) -> str | None:
        return tokenized[key_of(parameters)].why_infeasible(base, parameters)

    def run_all() -> None:
        with LiveReport(study), SweepView(stream):
            run = partial(run_trials, study, shared, why_infeasible, at_once)
            run()
            if study.repeats_left:
                logger.info("the best %d trials are repeated with other seeds", config.tune.finalists)
                run(repeats=True)

    logins = {name: value for name, value in os.environ.items() if name.startswith(("MLFLOW_", "AWS_"))}
    with lend(logins) as environment:
        shared = Shared(
            config=config,
            splits={key: data.splits for key, data in tokenized.items()},
            tags={PARENT: tracker.run_id} if tracker.run_id else {},
            stream=stream,
            working_directory=os.getcwd(),
            environment=environment,
        )
        with _ended_after(config.tune.hours, stream):
            stop.run(run_all)
    study.write()
    if stop.received:
        _record(study, tracker)
        ended = sum(record.status.ended for record in study.sweep.trials)
        raise StoppedError(
            f"stopped after {ended} of {config.tune.num_trials} trials: run the same command with --run.name "
            f"{study.folder.name} to go on",
            exit_code=128 + stop.received.value,
        )


@contextlib.contextmanager
def _ended_after(hours: float | None, stream: Any) -> Iterator[None]:
    """Let trials save and stop once their time is over."""
    if hours is None:
        yield
        return

    def end() -> None:
        logger.info("tune.hours=%g are over: trials write a checkpoint, and the sweep ends", hours)
        stream.stop.remote()

    timer = threading.Timer(3600 * hours, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _ask_to_stop(stream: Any) -> None:
    logger.info("stopping: trials write a checkpoint first; once more ends the sweep without it")
    stream.stop.remote()


def _conclude(study: Study, tracker: Tracker) -> SweepResult:
    """Keep the best trial's model as that of a single run would be kept."""
    report, sweep = _record(study, tracker), study.sweep
    if not study.finished:
        ended = sum(record.status.ended for record in sweep.trials)
        logger.warning(
            "%d of %d trials have ended: run the same command with --run.name %s to go on",
            ended,
            study.config.tune.num_trials,
            study.folder.name,
        )
    if sweep.best is None:
        reasons = {record.reason for record in sweep.trials if record.reason}
        why = f": {'; '.join(sorted(reasons))}" if reasons else ""
        raise TrainingError(f"no trial of the sweep {study.folder.name} has finished{why}")
    # The run is finished: nothing is trained, and its model goes where a trial's does not.
    result = train(trial_config(study.config, sweep.best))
    return SweepResult(sweep, result, tracker.where(), Report(report))


def _record(study: Study, tracker: Tracker) -> str:
    """Write the report, and tell the tracker what became of the trials; returns the report's place."""
    folder, sweep = study.folder, study.sweep
    folder.write(REPORT, render(sweep).encode())
    scores = [score for record in sweep.searched if (score := record.score(sweep.objective)) is not None]
    for number, best in enumerate(itertools.accumulate(scores, lambda *two: sweep.objective.best(two)), start=1):
        tracker.log_metrics({f"best_{sweep.objective.by}": best}, number)
    tracker.log_folder(partial(_copies, folder, (REPORT, TRIALS, SWEEP)), "sweep")
    ended = [record for record in sweep.trials if record.status.ended]
    entries = [_entry(record, sweep) for record in ended]
    try:
        for record, entry in zip(ended, entries, strict=True):
            send_owed(study.config.tracking, RunFolder.locate(trial_place(study.config, record)), entry.status)
        tracker.mark_trials(entries)
    except StorageError as error:
        logger.warning("%s. The same command tries again", error)
    return within(folder.uri, REPORT)


def _entry(record: TrialRecord, sweep: Sweep) -> TrialEntry:
    tags = {"sweep.status": record.status.value, "sweep.reason": record.reason or ""}
    return TrialEntry(
        name=record.name,
        params=record.parameters,
        tags={name: text for name, text in tags.items() if text},
        status=_STATUS.get(record.status, RunStatus.KILLED),
        best=record == sweep.best,
    )


@contextlib.contextmanager
def _copies(folder: RunFolder, names: tuple[str, ...]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qa_ray-") as place:
        for name in names:
            Path(place, name).write_bytes(folder.read(name) or b"")
        yield Path(place)
