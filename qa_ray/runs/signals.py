"""Ctrl-C and SIGTERM while a run trains: the first asks it to save and stop, the second ends it at once."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptible:
    """Runs a call while signals are answered.

    Attributes:
        received: the signal that asked to stop, if one came.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        """Call `on_signal` when the first signal comes."""
        self.received: signal.Signals | None = None
        self._on_signal = on_signal

    def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns.

        Raises:
            KeyboardInterrupt: a second signal came.
        """
        if threading.current_thread() is not threading.main_thread():
            return call()  # signals reach the main thread alone
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        outcome: Future[T] = Future()
        # In a thread of its own, for two reasons: Ray then leaves the handlers alone, and they run at once.
        threading.Thread(target=_fill, args=(outcome, call), name="qa_ray-fit", daemon=True).start()
        try:
            return _result(outcome)
        finally:
            for number, handler in before.items():
                # None stands for a handler that is not Python's, which cannot be put back.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        self._on_signal()


def _fill(outcome: Future[T], call: Callable[[], T]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:
        outcome.set_exception(error)


def _result(future: Future[T]) -> T:
    # A wait without an end would not let signal handlers run.
    while not wait([future], timeout=0.2).done:
        pass
    return future.result()
