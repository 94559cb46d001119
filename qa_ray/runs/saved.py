"""A checkpoint read back: what it says of itself, and the one from which a run goes on."""

import dataclasses
import json
import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from accelerate import PartialState

from qa_ray.config.fine_tuning import Config
from qa_ray.runs.ranks import on_all, on_main
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import MODEL, RunFolder, checkpoint_name
from qa_ray.storage.staging import Staging
from qa_ray.storage.strict_json import to_json
from qa_ray.tracking.metrics import Line
from qa_ray.training.snapshot import Snapshot

logger = logging.getLogger(__name__)

FACTS = "saved.json"
"""File of a checkpoint with its `Facts`."""
HISTORY = "metrics.jsonl"
"""File of a checkpoint with what had been recorded."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far."""

    step: int
    score: float
    """Higher is better; minus infinity if the metric was not finite."""

    @classmethod
    def of(cls, step: int, score: float | None) -> "Best":
        """What JSON made of it."""
        return cls(step, -math.inf if score is None else score)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a checkpoint says of itself."""

    step: int
    evaluated: bool
    """Whether it was made at an epoch's end, with the evaluation."""
    best: Best | None
    lineage: tuple[tuple[int, str], ...]
    """The worker groups that trained it, each with the step from which it went on; groups' names sort by time."""

    @classmethod
    def parse(cls, name: str, content: str | bytes) -> Self:
        """Read the file `FACTS` of the checkpoint `name`; ValueError, KeyError or TypeError if it is none."""
        found = json.loads(content)
        # Earlier versions have left out the last ones.
        return cls(
            step=int(name.split("-")[1]),
            evaluated=found.get("evaluated", False),
            best=Best.of(**found["best"]) if found["best"] else None,
            lineage=tuple((step, group) for step, group in found.get("lineage", ())),
        )

    def write(self, folder: Path, config: Config) -> None:
        """Write them into `folder`, beside the configuration."""
        fields = dataclasses.asdict(self) | {"config": dataclasses.asdict(config)}
        (folder / FACTS).write_text(to_json(fields, indent=1) + "\n", encoding="utf-8")

    @property
    def group(self) -> str:
        """The worker group that made it."""
        return self.lineage[-1][1] if self.lineage else ""

    def is_of_one_run_with(self, other: "Facts") -> bool:
        """Whether one was made on the way to the other: both were trained by the same groups up to the earlier one."""
        end = min(self.step, other.step)
        mine, others = ([entry for entry in one.lineage if entry[0] < end] for one in (self, other))
        return mine == others


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint in a local folder."""

    name: str
    folder: Path
    snapshot: Snapshot
    facts: Facts
    best: Best | None
    history: list[Line]
    """What had been recorded until then."""
    fetched: bool
    """Whether `folder` is a copy that this process has made."""

    @property
    def model(self) -> str:
        """Folder of the weights."""
        return str(self.folder / MODEL)

    @classmethod
    def read(cls, name: str, folder: Path, *, fetched: bool) -> "Saved":
        """Read the checkpoint `name` in the local folder `folder`, which is a copy if it was `fetched`."""
        facts = Facts.parse(name, (folder / FACTS).read_text(encoding="utf-8"))
        history = [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]
        return cls(name, folder, Snapshot.read(folder), facts, facts.best, history, fetched)

    def discard(self) -> None:
        """Delete the copy, if it is one."""
        if self.fetched:
            shutil.rmtree(self.folder, ignore_errors=True)


def find_saved(folder: RunFolder, state: PartialState, group: str) -> Saved | None:
    """The newest whole checkpoint of a run, alike on every rank; where it must be copied, once for each node.

    Args:
        folder: the run's.
        state: joins the ranks.
        group: names this group of workers.

    Raises:
        StorageError: the storage cannot be read, or a copy does not fit on a node's disk.
    """
    staging = Staging(folder, group)
    found = on_main(state, lambda: _fetch_newest(folder, staging))
    if found is None:
        return None
    name, place, names = found
    copies = place is None and state.is_local_main_process

    def copy_here() -> None:
        # It is there already where nodes share a disk, and on the main process's.
        if copies and not staging.fetched.exists():
            staging.keep(CheckpointStore(folder).fetch(name))

    try:
        # The others of a node wait here for its copy.
        on_all(copy_here)
    except BaseException:
        staging.clear()
        raise
    saved = Saved.read(name, place or staging.fetched, fetched=copies)
    if saved.best and checkpoint_name(saved.best.step) not in names:
        # A better one had taken its place, and was found damaged.
        logger.warning(
            "the best epoch's checkpoint %s is gone: later ones are compared anew", checkpoint_name(saved.best.step)
        )
        return dataclasses.replace(saved, best=None)
    return saved


def _fetch_newest(folder: RunFolder, staging: Staging) -> tuple[str, Path | None, list[str]] | None:
    """The newest whole checkpoint, where it lies for all nodes (None: it was copied to this one), and all names."""
    store = CheckpointStore(folder)
    names = store.names()
    found = store.fetch_newest()
    if found is None:
        return None
    name, place = found
    if store.local:
        return name, place, names
    staging.keep(place)
    return name, None, names
