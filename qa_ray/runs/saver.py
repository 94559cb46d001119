"""Saves a run while it trains."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import PreTrainedModel

from qa_ray.config.fine_tuning import Config
from qa_ray.errors import StorageError
from qa_ray.model.folder import save_model
from qa_ray.model.loading import load_tokenizer
from qa_ray.runs.saved import HISTORY, Best, Facts, Saved
from qa_ray.scores.results import Evaluation
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.ownership import Ownership, new_group
from qa_ray.storage.run_folder import EVALUATION, MODEL, RunFolder, checkpoint_name
from qa_ray.storage.staging import Staging
from qa_ray.storage.upload import Uploader
from qa_ray.tracking.metrics import Line, lines_of
from qa_ray.training.loop import TrainingLoop
from qa_ray.training.snapshot import Snapshot

logger = logging.getLogger(__name__)


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
        ownership: Ownership | None = None,
        uploader: Callable[[CheckpointStore, int], Uploader] = Uploader,
    ) -> None:
        """Prepare to save.

        Args:
            config: the run's configuration.
            folder: the run's folder.
            accelerator: joins the ranks.
            history: what was recorded; a checkpoint takes what it holds at that time.
            saved: the checkpoint that the run goes on from.
            ownership: what this worker group must hold to write; None lets anyone write.
            uploader: makes what stores checkpoints, on the main process alone.
        """
        self.best = saved.best if saved else None
        self._config = config
        self._accelerator = accelerator
        self._history = history
        self._tokenizer = load_tokenizer(config.model)
        group = ownership.group if ownership else new_group()
        self._staging = Staging(folder, group)
        self._lineage = (*saved.facts.lineage, (saved.snapshot.step, group)) if saved else ((0, group),)
        # Workers of a job that was killed live on for a while, and must not write into a run that goes on.
        self._store = CheckpointStore(folder, ownership.holds) if ownership else CheckpointStore(folder)
        if accelerator.is_main_process:
            self._uploader = uploader(self._store, config.checkpoint.keep)

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
            # Workers of an earlier group, which live on for a while, may have left something half written since.
            self._staging.clear_others()
            self._staging.clear()

    def _stage_and_submit(self, snapshot: Snapshot, model: PreTrainedModel, evaluation: Evaluation | None) -> None:
        name = checkpoint_name(snapshot.step)
        # An epoch's last step may be on its way already, as it was before the evaluation.
        staged = self._staging.make(
            f"{name}-evaluated" if evaluation else name,
            partial(self._write, snapshot=snapshot, model=model, evaluation=evaluation),
        )
        best = checkpoint_name(self.best.step) if self.best else None
        self._uploader.submit(name, staged, best=best, required=evaluation is not None)

    def _write(self, folder: Path, snapshot: Snapshot, model: PreTrainedModel, evaluation: Evaluation | None) -> None:
        threshold = evaluation.metrics.get("threshold") if evaluation else None
        save_model(folder / MODEL, model, self._tokenizer, self._config, threshold)
        try:
            snapshot.write(folder)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        Facts(snapshot.step, evaluation is not None, self.best, self._lineage).write(folder, self._config)
        (folder / HISTORY).write_bytes(lines_of(self._history))
        if evaluation:
            evaluation.save(folder / EVALUATION)
