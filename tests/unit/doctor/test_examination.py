"""A check that crashes or hangs is a line of its own and stops no other."""

import threading

import pytest

from qa_ray.doctor.examination import _bounded
from qa_ray.doctor.nodes import answer, asks_for_token, in_time
from qa_ray.doctor.verdict import Status, Verdict, passed
from qa_ray.errors import ConfigError, require


def test_verdict_is_that_of_the_check() -> None:
    assert _bounded(lambda: passed("fine"), 60) == passed("fine")


def test_mistake_of_the_user_is_told_as_what_to_do() -> None:
    def check() -> Verdict:
        raise ConfigError("train.seed=-1 must not be negative")

    verdict = _bounded(check, 60)
    assert verdict.status is Status.FAILED
    assert verdict.cure == "train.seed=-1 must not be negative"


def test_check_that_crashes_fails_by_itself() -> None:
    def check() -> Verdict:
        raise ZeroDivisionError("by zero")

    verdict = _bounded(check, 60)
    assert verdict.status is Status.FAILED
    assert verdict.seen == "the check itself failed: ZeroDivisionError: by zero"


def test_check_that_hangs_fails_when_patience_ends() -> None:
    end = threading.Event()

    def check() -> Verdict:
        end.wait()
        return passed("too late")

    verdict = _bounded(check, 0.1)
    end.set()
    assert verdict.status is Status.FAILED
    assert "no answer within 0.1 s" in verdict.seen


def test_interrupted_check_cleans_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned, join = threading.Event(), threading.Thread.join

    def interrupted(thread: threading.Thread, seconds: float | None = None) -> None:
        monkeypatch.setattr(threading.Thread, "join", join)
        release.set()
        raise KeyboardInterrupt

    release = threading.Event()

    def action() -> None:
        release.wait()
        cleaned.set()

    monkeypatch.setattr(threading.Thread, "join", interrupted)
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


def test_token_is_asked_for_where_ray_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert asks_for_token()
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert not asks_for_token()
