"""What a run of this name left, seen from the driver: nothing, a run to go on with, or a finished one."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qa_ray.answers import QuestionAnswerer
from qa_ray.answers.marking import Excerpt
from qa_ray.config.fields import flatten
from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import Language, Resume
from qa_ray.errors import ConfigError, StorageError
from qa_ray.locations import within
from qa_ray.pages.view import Report
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import CONFIG, MODEL, REPORT, RESULT, RunFolder
from qa_ray.storage.strict_json import to_json
from qa_ray.tracking.metrics import EVAL_PREFIX, metrics_of

logger = logging.getLogger(__name__)


# These change where and how fast a run computes, what it records and how long it goes on, not what it has computed.
_MAY_CHANGE = (
    "cluster.",
    "run.",
    "checkpoint.",
    "tracking.",
    "publish.",
    "train.epochs",
    "train.patience",
    "train.min_gain",
    "train.log_every",
    "train.compile",
    "train.gradient_checkpointing",
    "batch.max_tokens_per_device",
    "evaluate.max_tokens_per_device",
    "evaluate.before_training",
    "evaluate.per_epoch",
    "evaluate.every_steps",
)


@dataclass(frozen=True, slots=True)
class Example:
    """A validation question with its predicted and its reference answers."""

    question: str
    predicted: str
    """Empty if no answer is predicted."""
    references: list[str]
    """Empty if the context holds no answer."""
    excerpt: Excerpt | None = None
    """The sentence of the predicted answer."""
    language: Language = Language.SQUAD
    """The rule by which the two are compared."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished run has to show."""

    folder: str
    """Path or URI of the run's folder."""
    epochs: int
    """Epochs trained."""
    step: int
    """Optimizer steps made by the model that was kept."""
    before: Mapping[str, float] | None
    """Validation metrics before the first step, if they were asked for."""
    best: Mapping[str, float]
    """Validation metrics of the model that was kept."""
    examples: list[Example]
    record: str
    """How to look at the tracker's record."""
    ledger: str
    """Digest of all batches trained, see `TrainState`."""
    data: str
    """Digest of the validation questions."""
    logged_model: str | None = None
    """The model's URI in MLflow, if it is there."""
    registered: str | None = None
    """What became of it in MLflow's registry, in words."""
    trained_now: bool = True
    """Whether it was trained by this call, or had been finished before."""

    @property
    def scores(self) -> dict[str, float]:
        """Validation metrics of the model that was kept: exact_match and f1 in percent, loss and others."""
        names = {name: name.removeprefix(EVAL_PREFIX) for name in self.best if name.startswith(EVAL_PREFIX)}
        return {short: self.best[name] for name, short in names.items()}

    @property
    def report(self) -> Report:
        """The page that shows how good the model is."""
        return Report(within(self.folder, REPORT))

    def answerer(self, **settings: Any) -> QuestionAnswerer:
        """The model, to ask it questions; `settings` are those of `QuestionAnswerer.from_pretrained`."""
        with RunFolder.at(self.folder).local(MODEL) as model:
            return QuestionAnswerer.from_pretrained(str(model), **settings)

    def save(self, folder: RunFolder) -> None:
        """Write it into the run's folder, which says that the run is finished."""
        folder.write(RESULT, to_json(dataclasses.asdict(self), indent=1).encode())

    @classmethod
    def read(cls, folder: RunFolder) -> "TrainResult | None":
        """What `save` wrote; None if the run is not finished."""
        content = folder.read(RESULT)
        if content is None:
            return None
        fields = json.loads(content)
        examples = [Example(**example) for example in fields.pop("examples")]
        examples = [
            replace(
                example,
                excerpt=example.excerpt and Excerpt(*example.excerpt),
                language=Language(example.language),
            )
            for example in examples
        ]
        measured = {name: metrics_of(fields[name]) for name in ("before", "best") if fields[name] is not None}
        return cls(**fields | measured | {"examples": examples, "trained_now": False})


@dataclass(frozen=True, slots=True)
class ExistingRun:
    """What stood under the run's name."""

    folder: RunFolder
    resumed: bool
    """Whether the run was begun before."""
    finished: TrainResult | None
    """Its result, if there is nothing left to train."""


def find_run(config: Config) -> ExistingRun:
    """Look for a run of this name, and decide whether it goes on; nothing is written.

    Raises:
        StorageError: the storage cannot be read, or it holds what `run.resume` does not allow.
        ConfigError: the run was begun with a configuration that gives other results.
    """
    folder = RunFolder.locate(config.run)
    name, resume = config.run.name, config.run.resume
    if not folder.exists():
        if resume is Resume.REQUIRED:
            raise StorageError(f"run.resume=required, but there is no run.name={name} in {folder.storage_path}")
        return ExistingRun(folder, resumed=False, finished=None)
    if resume is Resume.NEVER:
        raise StorageError(
            f"run.name={name}: a run of this name exists in {folder.storage_path}: choose another name, remove it, or "
            "go on with it by run.resume=if_available"
        )
    recorded = folder.read(CONFIG)
    if recorded is None:
        raise StorageError(
            f"run.name={name}: {folder.uri} exists and is no run of qa_ray, or another job is beginning it at this "
            "moment: choose another name, or remove it"
        )
    check_unchanged(json.loads(recorded), config)
    if resume is Resume.REQUIRED and not CheckpointStore(folder).names():
        raise StorageError(f"run.resume=required, but the run {folder.uri} has no checkpoint")
    result = TrainResult.read(folder)
    finished = result if result and config.train.epochs <= result.epochs else None
    return ExistingRun(folder, resumed=True, finished=finished)


def check_unchanged(recorded: dict[str, Any], config: Config) -> None:
    """Refuse changes that would make another run of it, and tell of those that are taken."""
    before = dict(flatten(recorded))
    # What JSON makes of the configuration: tuples are lists there.
    now = dict(flatten(json.loads(json.dumps(dataclasses.asdict(config)))))
    differing = [name for name in now if before.get(name, now[name]) != now[name]]
    changed = {name: f"{name}: {before[name]} -> {now[name]}" for name in differing}
    refused = [text for name, text in changed.items() if not name.startswith(_MAY_CHANGE)]
    if refused:
        raise ConfigError(
            f"the run {config.run.name} was begun with another configuration ({'; '.join(refused)}): set it as it was "
            "to go on, or choose another run.name for a new run"
        )
    for text in changed.values():
        logger.info("changed since the run was begun: %s", text)
