"""What a run has recorded of itself, as the model card tells it."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qa_ray.config.fields import flatten
from qa_ray.errors import PublishError
from qa_ray.model.folder import SETTINGS
from qa_ray.runs.resume import TrainResult
from qa_ray.scores.intervals import Interval
from qa_ray.storage.run_folder import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    EVALUATION,
    INTERVALS,
    METRICS,
    MODEL,
    RESULT,
    RunFolder,
    checkpoint_name,
)
from qa_ray.tracking.hardware import environment_texts
from qa_ray.tracking.metrics import metrics_of

logger = logging.getLogger(__name__)

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run's own files: those of the finished run, or of one of its evaluated checkpoints."""

    config: Json
    """The configuration, section by section; may be that of another version of qa_ray."""
    place: str
    """Stands before the names of model and evaluation in the run's folder; ends with a slash, or is empty."""
    step: int
    """Optimizer steps that the model has made."""
    finished: bool
    """Whether training had ended."""
    before: Mapping[str, float] | None
    """Validation metrics before the first step, if they were asked for."""
    questions: Sequence[str]
    """Some validation questions, once training has ended."""
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    """95% intervals of the metrics that have one, once training has ended."""
    answers: Json
    """How answers are decoded: window, n-best, threshold."""
    architecture: Json
    """The model's config.json."""
    environment: Mapping[str, str]
    """Versions, commit and the workers' hardware by name; empty where they were not recorded."""

    @classmethod
    def read(cls, run: RunFolder, step: int | None = None) -> "RunRecord":
        """Read a run's files, or those of its evaluated checkpoint at a step.

        Raises:
            PublishError: it is no finished run, or has no such checkpoint.
            StorageError: its storage cannot be read.
        """
        config = _read(run, CONFIG)
        result = _result(run) if step is None else None
        place = f"{CHECKPOINTS}/{checkpoint_name(step)}/" if step is not None else ""
        metrics = _read(run, f"{place}{EVALUATION}/metrics.json")
        intervals = json.loads(run.read(f"{place}{INTERVALS}") or "{}")
        return cls(
            config=config,
            place=place,
            step=result.step if result else step or 0,
            finished=result is not None,
            before=result.before if result else _before(run),
            questions=[example.question for example in result.examples] if result else (),
            metrics=metrics,
            intervals={name: Interval(**fields) for name, fields in intervals.items() if None not in fields.values()},
            answers=_read(run, f"{place}{MODEL}/{SETTINGS}"),
            architecture=_read(run, f"{place}{MODEL}/config.json"),
            environment=environment_texts(_read(run, ENVIRONMENT)) if run.read(ENVIRONMENT) else {},
        )

    def settings(self) -> Iterator[tuple[str, Any]]:
        """Every recorded field of the configuration as (dotted name, value)."""
        return flatten(self.config)


def _result(run: RunFolder) -> TrainResult:
    result = TrainResult.read(run)
    if result is None:
        raise PublishError(
            f"the run {run.uri} is not finished: it has no {RESULT}. Go on with it: the same training command with "
            f"--run.name {run.name}"
        )
    return result


def _before(run: RunFolder) -> Mapping[str, float] | None:
    """What was measured before the first step, in a run that has not ended."""
    lines = (json.loads(line) for line in (run.read(METRICS) or b"").splitlines())
    return next((metrics_of(line) for line in lines if line["step"] == 0), None)


def _read(run: RunFolder, name: str) -> Any:
    content = run.read(name)
    if content is None:
        raise PublishError(f"{run.uri} holds no {name}: name the folder of a run that qa_ray has finished")
    try:
        return json.loads(content)
    except ValueError as error:
        raise PublishError(f"{run.uri}: {name} is not JSON: {error}") from error
