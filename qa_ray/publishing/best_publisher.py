"""The best model so far goes to the Hub while training goes on."""

import logging
import threading
from collections.abc import Mapping
from typing import Self

from qa_ray.config.fine_tuning import Config, EvalConfig
from qa_ray.errors import StorageError, UserError
from qa_ray.publishing.publish import publish
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import CHECKPOINTS, EVALUATION, RunFolder, checkpoint_name
from qa_ray.tracking.metrics import prefix_of

logger = logging.getLogger(__name__)


class BestPublisher:
    """Publishes the checkpoint of each new best epoch from a thread of the driver; a failure is told and no more.

    It looks at what is stored and at the validation metrics, and so needs nothing from the workers.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        evaluations: Mapping[int, Mapping[str, float]],
        *,
        look_every_s: float = 2.0,
    ) -> None:
        """Watch a run; `evaluations`, validation metrics by step, grow meanwhile."""
        self._config = config
        self._folder = folder
        self._evaluations = evaluations
        self._look_every_s = look_every_s
        self._last: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="qa_ray-publisher", daemon=True)

    def __enter__(self) -> Self:
        if self._config.publish.each_best:
            self._thread.start()
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._stop.set()
        # A run that was stopped has no time for the end of an upload.
        if self._thread.is_alive() and kind is None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._look_every_s):
            step = best_step(self._evaluations, self._config.evaluate)
            if step is not None and step != self._last and self._is_stored(step):
                self._last = step
                self._publish(step)

    def _is_stored(self, step: int) -> bool:
        name = checkpoint_name(step)
        try:
            whole = name in CheckpointStore(self._folder).names()
            # A step that is saved before its evaluation is stored twice.
            return whole and self._folder.read(f"{CHECKPOINTS}/{name}/{EVALUATION}/metrics.json") is not None
        except StorageError:
            # Training tells of a storage that is away; the next look may find it.
            return False

    def _publish(self, step: int) -> None:
        try:
            trusted = self._config.model.trust_remote_code
            url = publish(self._folder, self._config.publish, step, trust_remote_code=trusted)
            logger.info("step %d is published: %s", step, url)
        except UserError as error:
            logger.warning("the best model so far, of step %d, is not published; training goes on: %s", step, error)


def best_step(evaluations: Mapping[int, Mapping[str, float]], config: EvalConfig) -> int | None:
    """The step of the best evaluation after training began, the earliest of equals; None if there is none."""
    best_by, name = config.best_by, prefix_of(config.share) + config.best_by
    values = {step: metrics.get(name) for step, metrics in dict(evaluations).items() if step > 0}
    scores = {step: best_by.merit(value) for step, value in values.items()}
    return max(scores, key=lambda step: (scores[step], -step)) if scores else None
