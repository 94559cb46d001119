"""The model that answers at present: opened, tried out, and replaced when its alias names another version."""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qa_ray.answers import QuestionAnswerer
from qa_ray.errors import ModelError, UserError
from qa_ray.locations import resolve
from qa_ray.storage.run_folder import EVALUATION
from qa_ray.tracking.mlflow_versions import RegisteredVersion, find_version, is_alias

logger = logging.getLogger(__name__)

_PROBES = (
    ("When was tungsten discovered?", "The discovery of tungsten dates from 1783."),
    ("Who laid the first stone?", "Charles IV. laid the first stone of the bridge in 1357, at dawn."),
    ("What is the capital?", "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3042\u308b\u3002 Tokyo."),
)
"""Questions that a model must answer before it is asked others: none has a right answer, each a place in its text."""
_TRIES = 3
"""Times that a version is tried which cannot be opened: its server may be away for a moment."""

OpenModel = Callable[[str], QuestionAnswerer]
"""Opens what a location or a URI names."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model that has answered the probes."""

    answerer: QuestionAnswerer
    name: str
    """As the user named it."""
    version: str | None
    """Of a registered model."""
    scores: dict[str, float]
    """What it was measured by, as far as that is recorded."""

    def describe(self) -> dict[str, Any]:
        """What callers are told of it."""
        settings = self.answerer.settings
        return {
            "name": self.name,
            "version": self.version,
            "scores": self.scores,
            "window": {"max_length": settings.max_length, "stride": settings.stride},
            "max_answer_length": settings.max_answer_length,
            "no_answer_threshold": settings.no_answer_threshold,
            "precision": str(self.answerer.precision),
            "device": str(self.answerer.device),
        }


class ServedModel:
    """Holds the model that answers, and watches the alias that names it.

    Another version is loaded beside the one that answers, and takes over once it has answered the probes. One that
    cannot be opened, or fails on them, is told once, and is not tried again until the alias names another.

    Attributes:
        current: the model that answers; it is replaced as a whole.
        trouble: why the version that the alias names does not answer; None if it does.
    """

    def __init__(self, source: str, open_answerer: OpenModel, watch_s: float) -> None:
        """Open the model.

        Raises:
            UserError: it cannot be opened, or does not answer the probes.
        """
        self.trouble: str | None = None
        self._source = source
        self._open = open_answerer
        self._failed: tuple[str, int] = ("", 0)
        self.current = self._load(find_version(source))
        if is_alias(source):
            threading.Thread(target=self._watch, args=(watch_s,), name="qa_ray-champion", daemon=True).start()

    def look(self) -> None:
        """See which version the alias names, and change to it."""
        try:
            found = find_version(self._source)
        except UserError as error:
            # The server is away: what answers goes on.
            self._tell(str(error))
            return
        assert found is not None
        if found.version == self.current.version:
            self.trouble = None
            return
        version, tries = self._failed
        tries = tries if version == found.version else 0
        if tries >= _TRIES:
            return
        try:
            loaded = self._load(found)
        # Whatever a broken version raises, the one that answers must go on.
        except Exception as error:
            self._failed = (found.version, tries + 1)
            self._tell(
                f"{found.uri} does not answer, version {self.current.version} goes on: "
                f"{error if isinstance(error, UserError) else type(error).__name__}"
            )
            return
        logger.warning("%s: version %s takes over from version %s", self._source, found.version, self.current.version)
        self.current, self.trouble = loaded, None

    def _watch(self, watch_s: float) -> None:
        while True:
            time.sleep(watch_s)
            self.look()

    def _tell(self, trouble: str) -> None:
        if trouble != self.trouble:
            logger.warning("%s", trouble)
        self.trouble = trouble

    def _load(self, found: RegisteredVersion | None) -> LoadedModel:
        answerer = self._open(self._source if found is None else found.uri)
        probe(answerer, self._source)
        scores = recorded_scores(self._source) if found is None else found.scores
        return LoadedModel(answerer, self._source, None if found is None else found.version, scores)


def probe(answerer: QuestionAnswerer, name: str) -> None:
    """Ask a model a few questions.

    Raises:
        ModelError: an answer is no place in its text, or its probability is none.
    """
    for question, context in _PROBES:
        prepared = answerer.prepare(question, context, top_k=2)
        for answer in answerer.answer([prepared])[0]:
            text = context[answer["start"] : answer["end"]]
            if not 0.0 <= answer["score"] <= 1.0 or text != answer["answer"]:
                raise ModelError(f"{name}: asked {question!r}, the model gives {answer}, which is no answer")


def recorded_scores(source: str) -> dict[str, float]:
    """The scores in the record of the run that a model lies in; empty where there is none."""
    folder = Path(resolve(source))
    for place in (folder, folder.parent):
        try:
            content = json.loads((place / EVALUATION / "metrics.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            return {name: value for name, value in content.items() if type(value) in (int, float)}
    return {}
