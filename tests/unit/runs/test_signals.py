"""The first signal asks to stop, the second ends it at once; the signals are real ones."""

import os
import signal
import sys
import threading
import time

import pytest

from qa_ray.runs.signals import Interruptible

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def handlers():
    """Handlers of our own, which must be there again after each test."""
    heard: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: heard.append(number)) for number in SIGNALS}
    ours = {number: signal.getsignal(number) for number in SIGNALS}
    yield heard
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == ours
    assert not heard, "a signal went past the one that is tested"


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_asks_to_stop_and_the_result_comes_back(number, handlers):
    asked: list[bool] = []
    interruptible = Interruptible(lambda: asked.append(True))

    def call() -> str:
        send(number)
        while not (asked or interruptible.received or handlers):
            time.sleep(0.001)
        return "saved"

    assert interruptible.run(call) == "saved"
    assert interruptible.received is number
    assert asked == [True]


def test_result_comes_back_without_a_signal():
    asked: list[bool] = []
    interruptible = Interruptible(lambda: asked.append(True))
    assert interruptible.run(lambda: 7) == 7
    assert interruptible.received is None
    assert not asked


@pytest.mark.parametrize(("first", "second"), [SIGNALS, SIGNALS[::-1], SIGNALS[:1] * 2])
def test_second_signal_ends_it_at_once(first, second, handlers):
    asked: list[bool] = []
    over = threading.Event()
    interruptible = Interruptible(lambda: asked.append(True))

    def call() -> None:
        send(first)
        while not (asked or handlers):
            time.sleep(0.001)
        send(second)
        # It would go on for ever, unless the second signal is taken for another first one.
        while len(asked) < 2 and not handlers and not over.is_set():
            time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        interruptible.run(call)
    assert asked == [True]
    assert interruptible.received is first
    over.set()


def test_call_runs_beside_the_main_thread_which_answers_signals():
    def call() -> threading.Thread:
        return threading.current_thread()

    assert Interruptible(lambda: None).run(call) is not threading.main_thread()


def test_error_of_the_call_is_raised():
    def call() -> None:
        raise error

    error = ValueError("broken")
    with pytest.raises(ValueError, match="broken") as raised:
        Interruptible(lambda: None).run(call)
    assert raised.value is error


@pytest.mark.timeout(60)  # without an outcome the main thread would wait for ever
def test_even_an_exit_of_the_call_is_an_outcome():
    with pytest.raises(SystemExit):
        Interruptible(lambda: None).run(sys.exit)


def test_call_is_made_directly_outside_of_the_main_thread():
    """Where a search runs its trials no signal arrives."""
    seen: list[object] = []

    def call() -> str:
        seen.extend([threading.current_thread(), signal.getsignal(signal.SIGTERM)])
        return "done"

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: seen.append(Interruptible(lambda: None).run(call)))
    thread.start()
    thread.join()
    assert seen == [thread, handler, "done"]
