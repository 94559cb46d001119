"""The report of a sweep that goes on: written anew, in a thread, each time that a trial has ended."""

import logging
import threading
from typing import Self

from qa_ray.errors import StorageError
from qa_ray.tuning.report import REPORT, render
from qa_ray.tuning.study import Study

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 1.0


class LiveReport:
    """Writes the report of a study while the context lasts."""

    def __init__(self, study: Study) -> None:
        """Watch a study."""
        self._study = study
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="qa_ray-report", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _write(self) -> None:
        shown, told = 0, False
        while not self._over.wait(_SECONDS_BETWEEN_LOOKS):
            sweep = self._study.sweep
            ended = sum(record.status.ended for record in sweep.trials)
            if ended == shown:
                continue
            try:
                self._study.folder.write(REPORT, render(sweep).encode())
                shown = ended
            except StorageError as error:
                # The sweep's end insists on it.
                if not told:
                    logger.warning("%s is not written; the sweep goes on, and tries again: %s", REPORT, error)
                told = True
