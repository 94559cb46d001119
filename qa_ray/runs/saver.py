"""Saves a run while it trains, and finds the checkpoint from which it goes on."""

import dataclasses
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import PreTrainedModel

from qa_ray.config.fine_tuning import Config
from qa_ray.errors import StorageError
from qa_ray.model.folder import save_model
from qa_ray.model.loading import load_tokenizer
from qa_ray.runs.ranks import on_main
from qa_ray.scores.results import Evaluation
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import EVALUATION, MODEL, OWNER, RunFolder, checkpoint_name
from qa_ray.storage.strict_json import to_json
from qa_ray.storage.upload import Uploader
from qa_ray.training.loop import TrainingLoop
from qa_ray.training.snapshot import Snapshot

logger = logging.getLogger(__name__)

Line = dict[str, Any]

_FACTS, _HISTORY = "saved.json", "metrics.jsonl"


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
class Saved:
    """A checkpoint in a local folder."""

    name: str
    folder: Path
    snapshot: Snapshot
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
        best = json.loads((folder / _FACTS).read_text(encoding="utf-8"))["best"]
        history = [json.loads(line) for line in (folder / _HISTORY).read_text(encoding="utf-8").splitlines()]
        return cls(name, folder, Snapshot.read(folder), Best.of(**best) if best else None, history, fetched)

    def discard(self) -> None:
        """Delete the copy, if it is one."""
        if self.fetched:
            shutil.rmtree(self.folder, ignore_errors=True)


def find_saved(folder: RunFolder, accelerator: Accelerator) -> Saved | None:
    """The newest whole checkpoint of a run, alike on every rank.

    Raises:
        StorageError: the storage cannot be read.
    """
    store = CheckpointStore(folder)
    found = on_main(accelerator, store.fetch_newest)
    if found is None:
        return None
    name, place = found
    # The main process's copy serves its whole node.
    mine = accelerator.is_main_process or not place.exists()
    place = place if place.exists() else store.fetch(name)
    saved = Saved.read(name, place, fetched=mine and not store.local)
    if saved.best and checkpoint_name(saved.best.step) not in store.names():
        # A better one had taken its place, and was found damaged.
        logger.warning(
            "the best epoch's checkpoint %s is gone: later ones are compared anew", checkpoint_name(saved.best.step)
        )
        return dataclasses.replace(saved, best=None)
    return saved


class Saver:
    """Saves one run; every rank holds one and calls it together with the others, and the main process writes."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        accelerator: Accelerator,
        history: list[Line],
        *,
        saved: Saved | None = None,
        owner: str | None = None,
        uploader: Callable[[CheckpointStore, int, Callable[[], bool]], Uploader] = Uploader,
    ) -> None:
        """Prepare to save.

        Args:
            config: the run's configuration.
            folder: the run's folder.
            accelerator: joins the ranks.
            history: what was recorded; a checkpoint takes what it holds at that time.
            saved: the checkpoint that the run goes on from.
            owner: the job that may write, by its name in the folder's file `OWNER`; None lets anyone write.
            uploader: makes what stores checkpoints, on the main process alone.
        """
        self.best = saved.best if saved else None
        self._config = config
        self._accelerator = accelerator
        self._history = history
        self._tokenizer = load_tokenizer(config.model)
        self._store = CheckpointStore(folder)
        if accelerator.is_main_process:
            # Workers of a job that was killed live on for a while, and must not write into a run that goes on.
            self._uploader = uploader(
                self._store,
                config.checkpoint.keep,
                lambda: owner is None or folder.read(OWNER) == owner.encode(),
            )
            place = staging_place(folder)
            # A process that was killed may have left its files.
            shutil.rmtree(place, ignore_errors=True)
            self._staging = place / (owner or "anyone")

    def save(self, loop: TrainingLoop, model: PreTrainedModel, *, urgent: bool = False) -> None:
        """Save in the middle of an epoch; given up with a warning if it cannot be written.

        Args:
            loop: the loop, between two steps.
            model: its model, without any wrapper.
            urgent: saves even if the checkpoint before it is still under way; others are given up then.
        """
        snapshot = loop.snapshot()
        if not self._accelerator.is_main_process:
            return
        if self._uploader.busy and not urgent:
            logger.warning("step %d is not saved: the checkpoint before it is still being stored", snapshot.step)
            return
        try:
            self._stage_and_submit(snapshot, model, None)
        except StorageError as error:
            logger.warning("step %d is not saved; training goes on: %s", snapshot.step, error)

    def save_epoch(self, loop: TrainingLoop, model: PreTrainedModel, evaluation: Evaluation | None) -> None:
        """Save at an epoch's end, with the evaluation that the main process holds.

        Raises:
            StorageError: there is no room to write it.
        """
        snapshot = loop.snapshot()
        if evaluation is None:
            return
        by = self._config.evaluate.best_by
        score = by.merit(evaluation.metrics[by])
        if self.best is None or score > self.best.score:
            self.best = Best(snapshot.step, score)
        self._stage_and_submit(snapshot, model, evaluation)

    def stored(self, step: int) -> bool | None:
        """Whether the checkpoint of a step is stored; None while one is under way. Asked on the main process."""
        if self._uploader.busy:
            return None
        try:
            return checkpoint_name(step) in self._store.names()
        except StorageError:
            return False

    def close(self) -> None:
        """Wait until everything is stored.

        Raises:
            StorageError: an epoch's checkpoint could not be stored.
        """
        if self._accelerator.is_main_process:
            self._uploader.close()
            shutil.rmtree(self._staging.parent, ignore_errors=True)

    def _stage_and_submit(self, snapshot: Snapshot, model: PreTrainedModel, evaluation: Evaluation | None) -> None:
        name = checkpoint_name(snapshot.step)
        # An epoch's last step may be on its way already, as it was before the evaluation.
        staged = self._staging / (f"{name}-evaluated" if evaluation else name)
        try:
            shutil.rmtree(staged, ignore_errors=True)
            self._stage(staged, snapshot, model, evaluation)
        except (OSError, SafetensorError, StorageError) as error:
            shutil.rmtree(staged, ignore_errors=True)
            if isinstance(error, StorageError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise StorageError(
                f"the checkpoint cannot be written to {self._staging}: {reason} (make room there, or set TMPDIR to a "
                "folder with free space)"
            ) from error
        best = checkpoint_name(self.best.step) if self.best else None
        self._uploader.submit(name, staged, best=best, required=evaluation is not None)

    def _stage(self, folder: Path, snapshot: Snapshot, model: PreTrainedModel, evaluation: Evaluation | None) -> None:
        threshold = evaluation.metrics.get("threshold") if evaluation else None
        save_model(folder / MODEL, model, self._tokenizer, self._config, threshold)
        snapshot.write(folder)
        facts = {
            "best": dataclasses.asdict(self.best) if self.best else None,
            "config": dataclasses.asdict(self._config),
        }
        (folder / _FACTS).write_text(to_json(facts, indent=1) + "\n", encoding="utf-8")
        lines = "".join(to_json(line) + "\n" for line in self._history)
        (folder / _HISTORY).write_text(lines, encoding="utf-8")
        if evaluation:
            evaluation.save(folder / EVALUATION)


def staging_place(folder: RunFolder) -> Path:
    """Where a run's checkpoints stand on this node until they are stored."""
    key = hashlib.sha256(folder.uri.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"qa_ray-{os.getuid()}-{key}"
