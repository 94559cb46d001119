"""Saves a run while it trains: its state is copied between two steps, and a thread writes and stores the copy."""

import contextlib
import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from pyarrow.fs import LocalFileSystem
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config.fine_tuning import Config
from qa_ray.errors import StorageError
from qa_ray.model.folder import save_model
from qa_ray.model.loading import load_model, load_tokenizer
from qa_ray.runs.saved import HISTORY, Best, Facts, Saved
from qa_ray.scores.results import Evaluation
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.ownership import Ownership, new_group
from qa_ray.storage.run_folder import CHECKPOINTS, EVALUATION, MODEL, RunFolder, checkpoint_name
from qa_ray.storage.staging import Staging
from qa_ray.storage.upload import Uploader
from qa_ray.tracking.metrics import Line, lines_of
from qa_ray.training.loop import TrainingLoop
from qa_ray.training.snapshot import Snapshot
from qa_ray.training.to_host import CopiedTensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Copy:
    """All that a checkpoint holds, as it was when it was saved."""

    snapshot: Snapshot
    """Its optimizer's tensors are those that go on changing."""
    optimizer: CopiedTensors
    model: PreTrainedModel
    """Its weights go on changing."""
    weights: CopiedTensors
    facts: Facts
    history: list[Line]
    evaluation: Evaluation | None

    def write(self, folder: Path, tokenizer: FastTokenizer, config: Config) -> None:
        """Write it into `folder`."""
        threshold = self.evaluation.metrics.get("threshold") if self.evaluation else None
        save_model(folder / MODEL, self.model, tokenizer, config, threshold, weights=self.weights.read())
        try:
            dataclasses.replace(self.snapshot, optimizer=self.optimizer.read()).write(folder)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        self.facts.write(folder, config)
        (folder / HISTORY).write_bytes(lines_of(self.history))
        if self.evaluation:
            self.evaluation.save(folder / EVALUATION)


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
        self._config, self._folder = config, folder
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
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="qa_ray-checkpoint")
        self._writing: Future[None] | None = None

    def save(self, loop: TrainingLoop, model: PreTrainedModel, *, urgent: bool = False) -> None:
        """Save in the middle of an epoch; given up with a warning if it cannot be written.

        Args:
            loop: the loop, between two steps.
            model: its model, without any wrapper.
            urgent: saves even if the checkpoint before it is still under way; others are given up then.

        Raises:
            StorageError: an evaluated checkpoint before it could not be written.
        """
        with _stall_noted(loop):
            snapshot = loop.snapshot()
            if not self._accelerator.is_main_process:
                return
            if self._busy and not urgent:
                logger.warning("step %d is not saved: the checkpoint before it is still being stored", snapshot.step)
                return
            self._copy_and_submit(snapshot, model, None)

    def save_evaluated(self, loop: TrainingLoop, model: PreTrainedModel, evaluation: Evaluation | None) -> None:
        """Save with an evaluation, which the main process holds.

        If there is no room to write it, whatever is called next says so.

        Raises:
            StorageError: an evaluated checkpoint before it could not be written.
        """
        with _stall_noted(loop):
            snapshot = loop.snapshot()
            if evaluation is None:
                return
            by = self._config.evaluate.best_by
            score = by.merit(evaluation.metrics[by])
            if self.best is None or score > self.best.score:
                self.best = Best(snapshot.step, score)
            self._copy_and_submit(snapshot, model, evaluation)

    def stored(self, step: int) -> bool | None:
        """Whether the checkpoint of a step is stored; None while one is under way. Asked on the main process."""
        if self._busy:
            return None
        try:
            return checkpoint_name(step) in self._store.names()
        except StorageError:
            return False

    def load(self, step: int, model: PreTrainedModel) -> None:
        """Put the weights of a step's checkpoint, which is stored, into a model; on the main process.

        Raises:
            StorageError: it cannot be read.
        """
        with self._folder.local(f"{CHECKPOINTS}/{checkpoint_name(step)}/{MODEL}") as place:
            saved = load_model(dataclasses.replace(self._config.model, name=str(place), revision=None))
        model.load_state_dict(saved.state_dict())

    def keep(self, evaluation: Evaluation) -> None:
        """Write an evaluation into the run's folder, on the main process.

        Raises:
            StorageError: the folder cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="qa_ray-") as place:
            evaluation.save(Path(place))
            self._folder.copy(LocalFileSystem(), place, EVALUATION)

    def close(self) -> None:
        """Wait until everything is stored.

        Raises:
            StorageError: an evaluated checkpoint could not be written or stored.
        """
        if not self._accelerator.is_main_process:
            return
        self._writer.shutdown()
        try:
            self._finish_writing()
        finally:
            self._uploader.close()
        # Workers of an earlier group, which live on for a while, may have left something half written since.
        self._staging.clear_others()
        self._staging.clear()

    def abandon(self) -> None:
        """Wait until what was saved stands on this node's disk, where the next group of workers finds it."""
        if self._writing is not None:
            wait([self._writing])

    @property
    def _busy(self) -> bool:
        """Whether a checkpoint is being written or stored."""
        return self._uploader.busy or (self._writing is not None and not self._writing.done())

    def _finish_writing(self) -> None:
        """Wait until the checkpoint before is written, and raise what an epoch's has met."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _copy_and_submit(self, snapshot: Snapshot, model: PreTrainedModel, evaluation: Evaluation | None) -> None:
        # Memory holds one copy at a time.
        self._finish_writing()
        facts = Facts(snapshot.step, evaluation is not None, self.best, self._lineage)
        optimizer, weights = CopiedTensors(snapshot.optimizer), CopiedTensors(model.state_dict())
        copied = _Copy(snapshot, optimizer, model, weights, facts, list(self._history), evaluation)
        self._writing = self._writer.submit(self._write_and_upload, copied)

    def _write_and_upload(self, copied: _Copy) -> None:
        name, epoch = checkpoint_name(copied.facts.step), copied.facts.evaluated
        try:
            # An epoch's last step may be on its way already, as it was before the evaluation.
            staged = self._staging.make(
                f"{name}-evaluated" if epoch else name,
                partial(copied.write, tokenizer=self._tokenizer, config=self._config),
            )
        except StorageError as error:
            if epoch:
                raise
            logger.warning("step %d is not saved; training goes on: %s", copied.facts.step, error)
            return
        best = copied.facts.best
        self._uploader.submit(name, staged, best=checkpoint_name(best.step) if best else None, required=epoch)


@contextlib.contextmanager
def _stall_noted(loop: TrainingLoop) -> Iterator[None]:
    """Let the loop record for how long its steps stand still here."""
    begin = time.perf_counter()
    yield
    loop.note_stall(time.perf_counter() - begin)
