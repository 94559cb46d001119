"""One trial in its own process: a whole training run, which reports each evaluation to Ray Tune.

The process takes no CPU from the workers, and stands on the sweep's own node, as the driver of a single run does.
"""

import contextlib
import dataclasses
import json
import math
import os
import queue
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from qa_ray.config.fine_tuning import Config, EvalConfig
from qa_ray.config.operation import PublishConfig, RunConfig
from qa_ray.errors import StoppedError, StorageError, UserError, WorkerError, WorkerLostError
from qa_ray.locations import within
from qa_ray.runs.driver import RunContext, train
from qa_ray.runs.preparation import Splits
from qa_ray.runs.resume import TrainResult
from qa_ray.runs.stream import Restart, start_stream
from qa_ray.runs.warm_workers import WarmWorkers
from qa_ray.storage.run_folder import CHECKPOINTS, METRICS, RunFolder
from qa_ray.tracking.metrics import EPOCH, EVAL_PREFIX, Line, Progress, metrics_of, prefix_of
from qa_ray.tuning.lent import borrow
from qa_ray.tuning.options import SweepConfig
from qa_ray.tuning.space import apply
from qa_ray.tuning.tokenized import Key, key_of
from qa_ray.tuning.trials import TRIAL_FOLDERS, Status, TrialRecord
from qa_ray.tuning.view import TrialProgress

EVALUATIONS = "evaluations"
"""Metrics by the epochs trained until then."""
FIRST_STEP = "seconds_to_first_step"
END = "end"
"""What became of the trial when its run ended, `running` if it was interrupted; absent before."""
REASON = "reason"
"""Why it failed, where it would fail again."""
# What a user can mend does not mend itself, but for these.
_MAY_PASS = (StorageError, WorkerLostError)
_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """What all trials of a sweep have in common."""

    config: SweepConfig
    """The run that is varied, and how."""
    splits: Mapping[Key, Splits]
    """Tokenised data, in the object store."""
    tags: Mapping[str, str]
    """What their MLflow runs are found by: the sweep's."""
    stream: Any
    """Actor that knows whether the sweep is to stop, and takes how far trials are."""
    working_directory: str
    """Relative paths count from here."""
    environment: str
    """Where variables that lead to MLflow and to S3 are lent; some are secrets, and this is an object of Ray's."""


def trial_config(config: SweepConfig, record: TrialRecord) -> Config:
    """The run of a trial: its values and its own folder; its model is not published.

    Raises:
        ConfigError: the configuration does not allow the values; such a trial is never begun.
    """
    run = trial_place(config, record)
    return dataclasses.replace(apply(config.base, record.parameters), run=run, publish=PublishConfig())


def trial_place(config: SweepConfig, record: TrialRecord) -> RunConfig:
    """Where a trial's run has its folder, or would have it."""
    return RunConfig(name=record.name, storage_path=within(RunFolder.locate(config.run).uri, TRIAL_FOLDERS))


class TrialRun(tune.Trainable):  # type: ignore[misc]
    """A trial as Ray Tune drives it: `step` returns with each evaluation; the run itself goes on in a thread."""

    def setup(self, config: dict[str, Any], shared: Shared) -> None:
        """Begin the first trial of this process."""
        self._shared = shared
        self._workers = WarmWorkers()
        borrow(shared.environment)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process and with these workers, which have imported all that it needs."""
        self._end()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next evaluation, or for the end."""
        while True:
            if ray.get(self._shared.stream.stop_requested.remote()):
                self._stream.stop.remote()
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=_SECONDS_BETWEEN_LOOKS)
                if isinstance(event, Future):
                    return self._last_report(event.exception())
                epoch, step, metrics = event
                # The last one is reported when the model is in its place: the scheduler must not stop the run before.
                if not self._is_last(epoch, step):
                    return self._report({epoch: metrics})

    def cleanup(self) -> None:
        """End the run and the workers: there is no other trial for them."""
        self._end()
        self._workers.close()

    def _end(self) -> None:
        """End the run, if the scheduler has stopped it."""
        if not self._run.done():
            self._stream.stop.remote()
            wait([self._run])
            self._drop_checkpoints()

    def _begin(self, given: dict[str, Any]) -> None:
        # Tune changes it for each trial.
        os.chdir(self._shared.working_directory)
        record = TrialRecord(given["number"], given["parameters"])
        self._config = trial_config(self._shared.config, record)
        self._events: queue.Queue[tuple[float, int, dict[str, float]] | Future[TrainResult]] = queue.Queue()
        self._epochs: dict[int, float] = {}
        self._began = time.time()
        self._first_step: float | None = None
        self._scored = ""
        self._stream = start_stream()
        trial = RunContext(
            keeps_model=False,
            splits=self._shared.splits[key_of(record.parameters)],
            stream=self._stream,
            workers=self._workers,
            tags={**self._shared.tags, "sweep.trial": record.name},
            observe=self._observe,
        )
        self._run = ThreadPoolExecutor(1, "qa_ray-trial").submit(train, self._config, trial)
        self._run.add_done_callback(lambda run: self._tell(TrialProgress(record.name, 0, 0, ended=True)))
        self._run.add_done_callback(self._events.put)

    def _observe(self, item: Progress | Restart) -> None:
        """Hear of the run, in its follower's thread."""
        if isinstance(item, Restart):
            # After a lost worker, or in a new process: what was evaluated before.
            for line in item.history:
                if line["phase"] == "evaluate":
                    self._evaluated(line["step"], line)
        elif item.phase == "evaluate" and item.metrics:
            self._evaluated(item.step, item.metrics)
        elif item.phase == "train":
            if self._first_step is None:
                self._first_step = max(item.time - self._began, 0.0)
            self._tell(TrialProgress(self._config.run.name or "", item.done, item.total, self._scored))

    def _tell(self, progress: TrialProgress) -> None:
        self._shared.stream.put.remote(progress)

    def _evaluated(self, step: int, metrics: Mapping[str, Any]) -> None:
        if step and step not in self._epochs:
            before = max(self._epochs.values(), default=0.0)
            self._epochs[step] = comparable_epoch(metrics.get(EPOCH), before, self._config.evaluate)
            by, share = self._config.evaluate.best_by, self._config.evaluate.share
            self._scored = f"epoch {self._epochs[step]:g}: {by} {metrics.get(prefix_of(share) + by) or math.nan:.2f}"
            self._events.put((self._epochs[step], step, _scores(metrics)))

    def _is_last(self, epoch: float, step: int) -> bool:
        settings = self._config.train
        return epoch >= settings.epochs or (settings.max_steps is not None and step >= settings.max_steps)

    def _last_report(self, error: BaseException | None) -> dict[str, Any]:
        if isinstance(error, StoppedError):
            return {END: Status.RUNNING.value, "done": True}
        if isinstance(error, UserError | WorkerError) and not isinstance(error, _MAY_PASS):
            self._drop_checkpoints()
            # The rest is a traceback.
            return {END: Status.FAILED.value, REASON: str(error).partition("\n")[0], "done": True}
        if error is not None:
            raise error
        # A run that was finished by an earlier process has sent nothing.
        report = self._report(_recorded_evaluations(RunFolder.locate(self._config.run), self._config.evaluate))
        self._drop_checkpoints()
        return report | {END: Status.FINISHED.value, "done": True}

    def _report(self, evaluations: dict[float, dict[str, float]]) -> dict[str, Any]:
        epoch = max(evaluations)
        metric = prefix_of(self._config.evaluate.share) + self._config.evaluate.best_by
        return {
            EPOCH: epoch,
            metric: evaluations[epoch].get(metric, math.nan),
            EVALUATIONS: json.dumps(evaluations),
            FIRST_STEP: self._first_step,
        }

    def _drop_checkpoints(self) -> None:
        """Delete what a trial that has ended does not need: they take three times the space of its model."""
        if not self._shared.config.tune.keep_checkpoints:
            filesystem, path = RunFolder.locate(self._config.run).filesystem()
            with contextlib.suppress(OSError):
                filesystem.delete_dir(f"{path}/{CHECKPOINTS}")


def comparable_epoch(trained: float | None, before: float, config: EvalConfig) -> float:
    """The part of its epochs that a trial has behind it, alike in trials that make other numbers of steps in each.

    Args:
        trained: epochs by windows, at the first step after the part's end; None in runs of earlier versions.
        before: what this was at the evaluation before, 0 at the first.
        config: says how often a run is evaluated.
    """
    if trained is None:
        trained = before + 1
    if config.every_steps is not None:
        return round(trained, 4)
    # A run that ends within an epoch, after train.max_steps, is evaluated there too.
    return max(math.floor(trained * config.per_epoch + 1e-9), round(before * config.per_epoch) + 1) / config.per_epoch


def _recorded_evaluations(folder: RunFolder, config: EvalConfig) -> dict[float, dict[str, float]]:
    lines: list[Line] = [json.loads(line) for line in (folder.read(METRICS) or b"").splitlines()]
    found: dict[float, dict[str, float]] = {}
    steps = {0}  # before the first one; and the model that is kept may be measured once more
    for line in lines:
        if line["phase"] == "evaluate" and line["step"] not in steps:
            steps.add(line["step"])
            found[comparable_epoch(line.get(EPOCH), max(found, default=0.0), config)] = _scores(line)
    return found


def _scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics_of(metrics).items() if name.startswith(EVAL_PREFIX)}
