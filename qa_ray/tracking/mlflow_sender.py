"""The thread that brings a run's record to MLflow while training goes on."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from qa_ray.tracking.mlflow_outbox import Outbox, reason
from qa_ray.tracking.spool import Item

logger = logging.getLogger(__name__)

_GATHER_S = 0.2
"""Items that come so shortly after one another share a request."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_LAST_PAUSES_S = (0.0, 0.5, 1.0, 2.0)
"""Pauses before the attempts at the end of a run."""
_PATIENCE_S = 60.0
"""The end of a run waits so long for requests that hang."""


class Sender:
    """Sends what a run records, again and again until the server takes it; callers never wait for it."""

    def __init__(self, own: Outbox, earlier: Sequence[Outbox], others: Callable[[], Sequence[Outbox]]) -> None:
        """Start the thread.

        Args:
            own: takes what is recorded from now on.
            earlier: what is left over from earlier processes of the same run.
            others: finds what is left over from other runs, which is tried once.
        """
        self._own = own
        self._boxes = [*earlier, own]
        self._others = others
        self._changed = threading.Condition()
        self._fresh = bool(earlier)
        self._asked = self._answered = 0
        self._closing = False
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="qa_ray-mlflow", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return sum(map(len, self._boxes))

    def put(self, items: Sequence[Item]) -> None:
        """Record items soon."""
        self._own.put(items)
        self.wake()

    def wake(self) -> None:
        """Say that something has been put into our own outbox."""
        with self._changed:
            self._fresh = True
            self._changed.notify_all()

    def flush(self, patience_s: float = _PATIENCE_S) -> bool:
        """Send everything now, and return whether nothing is left."""
        with self._changed:
            self._asked += 1
            number = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._answered >= number, timeout=patience_s)
        return not len(self)

    def close(self) -> int:
        """Send what can be sent, end the thread, and return how many items are left on the disk."""
        deadline = time.monotonic() + _PATIENCE_S
        for pause in _LAST_PAUSES_S:
            time.sleep(pause)
            if self.flush(deadline - time.monotonic()) or time.monotonic() > deadline:
                break
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        # A thread that hangs in a request keeps its lock, and does not keep the process.
        self._thread.join(max(1.0, deadline - time.monotonic()))
        return len(self)

    def _run(self) -> None:
        self._send_others()
        pause = _FIRST_PAUSE_S
        while self._wait(pause):
            asked, self._fresh = self._asked, False
            problem = next(filter(None, [box.send() for box in self._boxes]), None)
            self._tell(problem)
            pause = min(2 * pause, _LONGEST_PAUSE_S) if problem else _FIRST_PAUSE_S
            with self._changed:
                self._answered = asked
                self._changed.notify_all()
        for box in self._boxes:
            box.close()

    def _wait(self, pause: float) -> bool:
        """Wait until there is something to send and the time for it has come; returns False at the end."""
        with self._changed:
            if not self._problem:
                self._changed.wait_for(lambda: self._fresh or self._urgent())
            self._changed.wait_for(self._urgent, timeout=pause if self._problem else _GATHER_S)
            return not self._closing

    def _urgent(self) -> bool:
        return self._closing or self._asked > self._answered

    def _tell(self, problem: Exception | None) -> None:
        if problem and not self._problem:
            logger.warning(
                "MLflow takes no records for now, training goes on: they wait on this machine's disk (%s)",
                reason(problem),
            )
        elif self._problem and not problem:
            logger.warning("MLflow takes records again: what had waited has been sent")
        self._problem = problem

    def _send_others(self) -> None:
        for box in self._others():
            number = len(box)
            problem = box.send()
            if number and not problem:
                logger.info("%d records of the run %s that had waited were sent to MLflow", number, box.run_id)
            box.close()
