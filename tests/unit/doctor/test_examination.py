"""A check that crashes or hangs is a line of its own and stops no other."""

import signal
import threading
import time

import pytest

from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import Config
from qa_ray.doctor.examination import _Examination, bounded
from qa_ray.doctor.nodes import Nodes, answer, in_time
from qa_ray.doctor.verdict import Status, Verdict, failed, passed
from qa_ray.errors import require


def test_verdict_is_that_of_the_check() -> None:
    assert bounded(lambda: passed("fine"), 60) == passed("fine")


def test_check_that_crashes_fails_by_itself() -> None:
    def check() -> Verdict:
        raise ZeroDivisionError("by zero")

    assert bounded(check, 60) == failed("ZeroDivisionError: by zero", "")


def test_check_that_hangs_fails_when_patience_ends() -> None:
    end = threading.Event()

    def check() -> Verdict:
        end.wait()
        return passed("too late")

    verdict = bounded(check, 0.1)
    end.set()
    assert verdict.status is Status.FAILED
    assert "no answer within 0.1 s" in verdict.seen


@pytest.fixture
def _interruptible():
    # A shell makes the processes that it starts in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_interrupted_check_cleans_up_first() -> None:
    cleaned = threading.Event()

    def action() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.5)
        cleaned.set()

    with pytest.raises(KeyboardInterrupt):
        in_time(action, 60)
    assert cleaned.is_set()


@pytest.mark.parametrize(
    ("question", "arguments", "expected"),
    [
        (int, ("7",), (7, None)),
        (require, (False, "run.name is empty"), (None, "run.name is empty")),
        (int, ("x",), (None, "ValueError: invalid literal for int() with base 10: 'x'")),
    ],
    ids=["answer", "user error", "any error"],
)
def test_place_answers_with_a_value_or_with_words(question, arguments, expected) -> None:
    assert answer(question, arguments) == expected


def test_long_traceback_is_cut_to_its_end() -> None:
    def fail() -> None:
        raise RuntimeError("Traceback\n" * 100 + "No module named 'qa_ray'")

    _, words = answer(fail, ())
    assert (words or "").endswith("Traceback No module named 'qa_ray'")
    assert len(words or "") < 400


def test_share_of_the_training_data_is_looked_at_with_them() -> None:
    config = Config(data=DataConfig(train="train.json", validation="nowhere.json", validation_share=0.1))
    checks = dict(_Examination(config, Nodes((), 60)).checks())
    assert checks["validation"]() == passed("10% of the contexts of the training data")
