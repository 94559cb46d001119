"""Checkpoints on their way to the run's storage: published in a thread, so that training goes on meanwhile."""

import logging
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from qa_ray.errors import StorageError
from qa_ray.storage.checkpoint_store import CheckpointStore, NotOwnerError
from qa_ray.storage.staging import discard

logger = logging.getLogger(__name__)

PAUSES = (0.0, 1.0, 4.0)
"""Seconds before each attempt: a store that refuses once often takes the next request."""


@dataclass(frozen=True, slots=True)
class _Upload:
    name: str
    staged: Path
    required: bool


class Uploader:
    """Publishes staged checkpoints one after the other, and deletes old ones."""

    def __init__(self, store: CheckpointStore, keep: int | None, pauses: Sequence[float] = PAUSES) -> None:
        """Publish to `store`, which keeps the newest `keep` and the best; without a number, all."""
        self._store = store
        self._keep = keep
        self._pauses = pauses
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="qa_ray-upload")
        self._last: Future[None] | None = None
        self._owed: list[_Upload] = []
        self._lost: NotOwnerError | None = None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is still under way."""
        return self._last is not None and not self._last.done()

    def submit(self, name: str, staged: Path, *, best: str | None, required: bool) -> None:
        """Publish the local folder `staged` as `name`, then delete it.

        Args:
            name: the checkpoint's name.
            staged: a folder that nobody else touches any more.
            best: name of the best checkpoint, which is never deleted.
            required: it is tried again with every later one until it is stored; another one may be lost.
        """
        if self._last is not None and self._last.done():
            self._last.result()  # raises what it did not expect
        self._last = self._thread.submit(self._work, _Upload(name, staged, required), best)

    def close(self) -> None:
        """Wait until everything is stored.

        Raises:
            StorageError: a required checkpoint could not be stored; its files stay where they are.
        """
        if self._last is not None:
            self._last.result()
        self._thread.submit(self._settle).result()
        self._thread.shutdown()
        if self._owed:
            names = ", ".join(upload.name for upload in self._owed)
            if self._lost:
                raise StorageError(f"the run's checkpoints {names} cannot be stored: {self._lost}")
            places = ", ".join(str(upload.staged) for upload in self._owed)
            raise StorageError(
                f"the run's checkpoints {names} cannot be stored: their files are in {places} on the node "
                f"{socket.gethostname()}. Mend the storage and run the same command again: they are stored first, if "
                "this node takes part, and it goes on from them"
            )

    def _work(self, upload: _Upload, best: str | None) -> None:
        self._owed.append(upload)
        self._settle()
        if not self._owed and self._keep is not None:
            try:
                # Later ones than this were found damaged: the run went on from one before them.
                newest = [name for name in self._store.names() if name <= upload.name][-self._keep :]
            except StorageError as error:
                logger.warning("old checkpoints are not deleted: %s", error)
                return
            self._store.prune({*newest, *([best] if best else [])})

    def _settle(self) -> None:
        """Try to publish all that waits; once the store has refused one at each attempt, the others get one each."""
        pauses = self._pauses
        for upload in list(self._owed):
            error = self._publish(upload, pauses)
            if error is None or not upload.required:
                self._owed.remove(upload)
                discard(upload.staged)
            if error is not None:
                logger.warning("checkpoint %s is not stored; training goes on: %s", upload.name, error)
                pauses = pauses[:1]

    def _publish(self, upload: _Upload, pauses: Sequence[float]) -> StorageError | None:
        failure = None
        for seconds in pauses:
            time.sleep(seconds)
            try:
                self._store.publish(upload.name, upload.staged)
            except NotOwnerError as error:
                self._lost = error
                return error
            except StorageError as error:
                failure = error
            else:
                return None
        return failure
