"""Who keeps the record of a run, what can be recorded besides metrics, and what must not be: secrets."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from qa_ray.locations import holds_secret, is_local, names_secret

# Counts of tokens and tokenizers are no access tokens.
_HARMLESS = re.compile(r"tokeni[sz]\w*|(max|num)_tokens|tokens_per_\w+")
SYSTEM_PREFIX = "system/"
"""Stands before the metrics of nodes, which are MLflow's system metrics."""
PARENT = "mlflow.parentRunId"
"""MLflow's tag of a run that belongs to another."""
LONGEST_TAG = 8000
"""What MLflow takes at most of a tag's text, in characters."""

OpenFolder = Callable[[], AbstractContextManager[Path]]
"""Brings a folder to the local disk, as often as it is needed."""


class RunStatus(StrEnum):
    """How a run ended."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"
    """A signal stopped it, or the search that it was a trial of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataUse:
    """A data set that a run has read."""

    name: str
    context: str
    """What for: `training` or `validation`."""
    source: str
    """Path or URI of its files, or its name on the Hub."""
    digest: str
    """Fingerprint of its content, at most 36 characters."""
    on_hub: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    """MLflow type of each column: string, long, double, boolean."""
    profile: Mapping[str, float] = field(default_factory=dict)
    """What was counted: num_questions and so on."""

    @property
    def source_type(self) -> str:
        """The kind of the source by MLflow's names: hugging_face, local, or the URI's scheme."""
        if self.on_hub:
            return "hugging_face"
        return "local" if is_local(self.source) else self.source.partition("://")[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEntry:
    """What is recorded of a trial when the sweep ends."""

    name: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    status: RunStatus
    best: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A logged model that wants to be the best of its name."""

    uri: str
    """What `log_model` returned."""
    metric: str
    """What it was measured by: `f1` or another metric of which more is better."""
    score: float
    data: str
    """Fingerprint of the data that it was measured on."""


class Tracker:
    """Keeps the record of one run; this one keeps nothing.

    Nothing waits for a server but the start, the end, models and trials; these raise a StorageError if it cannot be
    reached.

    Attributes:
        run_id: what the record is found by; None if there is none.
    """

    run_id: str | None = None

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record what the run is found by."""

    def log_metrics(self, metrics: Mapping[str, float], step: int, when: float | None = None) -> None:
        """Record metrics at an optimizer step; `when` in seconds since 1970, or else now."""

    def log_folder(self, open_folder: OpenFolder, name: str) -> None:
        """Keep the files of a folder as artifacts under `name`; it is opened when they are sent."""

    def log_model(self, folder: Path, step: int = 0) -> str | None:
        """Log a fine-tuned model, and return its URI; None if there is no record."""
        return None

    def register(self, name: str, candidate: Candidate) -> str:
        """Make a logged model a version of the registered model `name`, and say how it compares."""
        return self.where()

    def mark_trials(self, entries: Sequence[TrialEntry]) -> None:
        """Record what became of a sweep's trials that have ended."""

    def finish(self, status: RunStatus) -> None:
        """End the run."""

    def where(self) -> str:
        """Say in a line how to look at the record."""
        return "not recorded (tracking.enabled is false)"


def shown(name: str, value: Any) -> str:
    """The text of a parameter, or a mask where its name or the value itself speaks of a secret."""
    text = str(value)
    speaks = names_secret(_HARMLESS.sub("", name.lower()))
    return "(hidden)" if (speaks and value is not None) or holds_secret(text) else text


def cut(text: str, limit: int, *, name: bool = False) -> str:
    """The text if it has at most `limit` characters, else its beginning with a mark; a name's mark is a plain `...`."""
    if len(text) <= limit:
        return text
    # MLflow takes no brackets in a name.
    mark = "..." if name else f"... (cut: {len(text)} characters)"
    return text[: limit - len(mark)] + mark
