"""A sweep on its driver: tokenise once, run the trials, keep the best model, and leave a report."""

import contextlib
import dataclasses
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray

from qa_ray.config.fine_tuning import Config, flatten
from qa_ray.config.policies import Resume
from qa_ray.errors import ConfigError, StoppedError, StorageError, TrainingError
from qa_ray.locations import within
from qa_ray.runs.driver import train
from qa_ray.runs.resources import plan_resources
from qa_ray.runs.resume import check_unchanged
from qa_ray.runs.signals import Interruptible
from qa_ray.runs.stream import start_stream
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.tracker import PARENT, RunStatus, Tracker, TrialEntry, send_owed, start_tracker
from qa_ray.tuning.conductor import Conductor
from qa_ray.tuning.history import TRIALS, Goal, History, Status, TrialRecord
from qa_ray.tuning.material import Materials
from qa_ray.tuning.options import SweepConfig
from qa_ray.tuning.report import REPORT, render
from qa_ray.tuning.result import Sweep, SweepResult
from qa_ray.tuning.samplers import Sampler, make_sampler
from qa_ray.tuning.space import Space, defaults, read_space
from qa_ray.tuning.sweep import run_trials, trials_at_once
from qa_ray.tuning.trial import Shared, trial_config

logger = logging.getLogger(__name__)

SWEEP = "sweep.json"
"""Configuration, space and options, in the sweep's folder."""
# What may change when a sweep goes on; the rest makes scores that cannot be compared.
_STATUS = {Status.FINISHED: RunStatus.FINISHED, Status.FAILED: RunStatus.FAILED}
_MAY_CHANGE = ("num_trials", "sampler", "max_failures", "max_concurrent", "keep_checkpoints")


@dataclass(frozen=True, slots=True)
class _Opened:
    """A sweep's settings and what was done before."""

    config: SweepConfig
    base: Config
    folder: RunFolder
    space: Space
    goal: Goal
    history: History
    sampler: Sampler

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to be tried."""
        if not len(self.history) or not all(record.status.ended for record in self.history):
            return False
        known = [record.parameters for record in self.history]
        enough = len(known) >= self.config.tune.num_trials
        return enough or self.sampler.propose(len(known), known) is None


def search(config: SweepConfig) -> SweepResult:
    """Search the space of `config` on the Ray cluster that this process is connected to.

    A sweep that was begun before goes on; of one that is finished the result is shown. The best trial's model is
    logged and registered in MLflow as that of a single run would be.

    Raises:
        UserError: something that the user can mend; no trial has begun then, or none has finished.
        StoppedError: a signal stopped the sweep; its trials have saved.
    """
    opened = _open(config)
    tracker = _start_tracker(opened)
    status = RunStatus.FAILED
    try:
        if not opened.finished:
            _run(opened, tracker)
        result = _conclude(opened, tracker)
        status = RunStatus.FINISHED
        return result
    except StoppedError:
        status = RunStatus.KILLED
        raise
    finally:
        tracker.finish(status)


def _open(config: SweepConfig) -> _Opened:
    base, folder = config.base, RunFolder.locate(config.run)
    space, goal = read_space(config.space), Goal(config.evaluate.best_by)
    sampler = make_sampler(space, config.tune, goal)
    settings = {
        "config": dataclasses.asdict(base),
        "space": {field: str(domain) for field, domain in space.items()},
        "tune": dataclasses.asdict(config.tune),
    }
    if folder.exists():
        _check_same(json.loads(json.dumps(settings)), config, folder)
    elif config.run.resume is Resume.REQUIRED:
        raise StorageError(
            f"run.resume=required, but there is no sweep run.name={folder.name} in {folder.storage_path}"
        )
    plan_resources(config.cluster)
    folder.write(SWEEP, json.dumps(settings, indent=1).encode())
    return _Opened(config, base, folder, space, goal, History(folder), sampler)


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
    before = {"epochs": recorded["config"]["train"]["epochs"], "space": recorded["space"], **recorded["tune"]}
    now = {"epochs": settings["config"]["train"]["epochs"], "space": settings["space"], **settings["tune"]}
    changed = [f"{name}: {before[name]} -> {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
    refused = [text for text in changed if text.partition(":")[0] not in _MAY_CHANGE]
    if refused:
        raise ConfigError(
            f"the sweep {folder.name} was begun with other settings ({'; '.join(refused)}): set them as they were to "
            "go on, or choose another run.name for a new sweep"
        )


def _start_tracker(opened: _Opened) -> Tracker:
    config, folder = opened.config, opened.folder
    params = dict(flatten(opened.base)) | {f"space.{field}": str(domain) for field, domain in opened.space.items()}
    params |= {f"tune.{name}": value for name, value in dataclasses.asdict(config.tune).items()}
    tags = {"sweep": folder.name, "model.name": config.model.name}
    return start_tracker(config.tracking, folder, params=params, tags=tags)


def _run(opened: _Opened, tracker: Tracker) -> None:
    """Run all trials that are left."""
    config, base = opened.config, opened.base
    materials = Materials(base, opened.space)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    at_once = trials_at_once(config.tune, plan_resources(config.cluster), nodes)
    logger.info("%d trials of up to %d epochs, %d at once", config.tune.num_trials, config.train.epochs, at_once)
    desk = start_stream()
    shared = Shared(
        config=base,
        splits=materials.splits,
        goal=opened.goal,
        tags={PARENT: tracker.run_id} if tracker.run_id else {},
        desk=desk,
        keep_checkpoints=config.tune.keep_checkpoints,
        working_directory=os.getcwd(),
        environment={name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")},
    )
    conductor = Conductor(
        opened.history,
        opened.sampler,
        materials.objection,
        defaults=defaults(base, opened.space),
        tune=config.tune,
        goal=opened.goal,
    )
    stop = Interruptible(lambda: _ask_to_stop(desk))
    stop.run(lambda: run_trials(conductor, shared, config.tune, at_once))
    if stop.received:
        _record(opened, tracker)
        ended = sum(record.status.ended for record in opened.history)
        raise StoppedError(
            f"stopped after {ended} of {config.tune.num_trials} trials: run the same command with --run.name "
            f"{opened.folder.name} to go on",
            exit_code=128 + stop.received.value,
        )


def _ask_to_stop(desk: Any) -> None:
    logger.info("stopping: trials write a checkpoint first; once more ends the sweep without it")
    desk.stop.remote()


def _conclude(opened: _Opened, tracker: Tracker) -> SweepResult:
    """Keep the best trial's model as that of a single run would be kept."""
    report = _record(opened, tracker)
    sweep = _sweep(opened)
    if sweep.best is None:
        reasons = {record.reason for record in sweep.trials if record.reason}
        raise TrainingError(f"no trial of the sweep {opened.folder.name} has finished: {'; '.join(sorted(reasons))}")
    # The run is finished: nothing is trained, and its model goes where a trial's does not.
    result = train(trial_config(opened.base, sweep.best))
    return SweepResult(sweep, result, tracker.where(), report)


def _sweep(opened: _Opened) -> Sweep:
    config = opened.config
    return Sweep(
        name=opened.folder.name,
        folder=opened.folder.uri,
        space=opened.space,
        defaults=defaults(opened.base, opened.space),
        tune=config.tune,
        goal=opened.goal,
        epochs=config.train.epochs,
        trials=list(opened.history),
        best=opened.history.best(opened.goal),
        facts={
            "Model": config.model.name,
            "Trained on": _source(config, config.data.train, config.data.max_train_examples),
            "Measured on": _source(config, config.data.validation, config.data.max_validation_examples),
        },
    )


def _source(config: SweepConfig, location: str, limit: int | None) -> str:
    place = f"{config.data.hub} {location}" if config.data.hub else location
    return place if limit is None else f"{place}, up to {limit:,} questions"


def _record(opened: _Opened, tracker: Tracker) -> str:
    """Write the report, and tell the tracker what became of the trials; returns the report's place."""
    sweep = _sweep(opened)
    opened.folder.write(REPORT, render(sweep).encode())
    for number, score in enumerate(_best_so_far(sweep), start=1):
        tracker.log_metrics({f"best_{sweep.goal.by}": score}, number)
    tracker.log_folder(partial(_copies, opened.folder, (REPORT, TRIALS, SWEEP)), "sweep")
    ended = [record for record in sweep.trials if record.status.ended]
    entries = [_entry(record, sweep) for record in ended]
    try:
        for record, entry in zip(ended, entries, strict=True):
            send_owed(opened.config.tracking, RunFolder.locate(trial_config(opened.base, record).run), entry.status)
        tracker.mark_trials(entries)
    except StorageError as error:
        logger.warning("%s. The same command tries again", error)
    return within(opened.folder.uri, REPORT)


def _best_so_far(sweep: Sweep) -> list[float]:
    """The best score after each trial that has one."""
    scores = [score for record in sweep.trials if (score := record.score(sweep.goal)) is not None]
    return [sweep.goal.best(scores[: number + 1]) for number in range(len(scores))]


def _entry(record: TrialRecord, sweep: Sweep) -> TrialEntry:
    tags = {"sweep.status": record.status.value, "sweep.reason": record.reason or ""}
    return TrialEntry(
        name=record.name,
        params=record.parameters,
        tags={name: text for name, text in tags.items() if text},
        status=_STATUS.get(record.status, RunStatus.KILLED),
        best=sweep.best is not None and record.number == sweep.best.number,
    )


@contextlib.contextmanager
def _copies(folder: RunFolder, names: tuple[str, ...]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qa_ray-") as place:
        for name in names:
            Path(place, name).write_bytes(folder.read(name) or b"")
        yield Path(place)
