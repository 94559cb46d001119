"""The report of a sweep that goes on: written anew, in a thread, each time that a trial has ended."""

import logging
import threading
from typing import Self

from qa_ray.errors import StorageError
from qa_ray.tuning.report import REPORT, render
from qa_ray.tuning.study import Study

logger = logging.getLogger(__name__)


class LiveReport:
    """Writes the report of a study while the context lasts."""

    def __init__(self, study: Study) -> None:
        """Watch a study."""
        self._study = study
        self._woken = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._write, name="qa_ray-report", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        self.renew()
        self._thread.join()

    def renew(self) -> None:
        """Say that there is something new; nobody waits for the page."""
        self._woken.set()

    def _write(self) -> None:
        told = False
        while True:
            self._woken.wait()
            self._woken.clear()
            if self._over:
                return
            try:
                self._study.folder.write(REPORT, render(self._study.sweep).encode())
            except StorageError as error:
                # The sweep's end insists on it.
                if not told:
                    logger.warning("%s is not written; the sweep goes on, and tries again: %s", REPORT, error)
                told = True
