"""An answer is shown within its sentence, and marked in a way that its reader's screen can show."""

import io

import pytest

from qa_ray.answers.marking import Verdict, excerpt, takes_colour

CONTEXT = 'The bridge is old. It was built in 1357 (some say "1342.") and stands. Nobody\nlives on it.'


def cut(context: str, answer: str) -> str:
    start = context.index(answer)
    return excerpt(context, start, start + len(answer)).marked(colour=False)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The", "[[The]] bridge is old."),
        ("old.", "The bridge is [[old.]]"),
        ("1357", 'It was built in [[1357]] (some say "1342.")'),
        ("old. It", 'The bridge is [[old. It]] was built in 1357 (some say "1342.")'),
        ("Nobody", "[[Nobody]]"),
        ("it.", "lives on [[it.]]"),
        (CONTEXT, f"[[{' '.join(CONTEXT.split())}]]"),
    ],
    ids=["first word", "last word", "within", "over two", "line's end", "text's end", "all"],
)
def test_answer_stands_in_its_sentence(answer: str, expected: str) -> None:
    assert cut(CONTEXT, answer) == expected


@pytest.mark.parametrize("context", ["3.5 km", "A. B", "x", "no mark at all"])
def test_pieces_of_a_sentence_are_those_of_the_text(context: str) -> None:
    for start in range(len(context)):
        for end in range(start + 1, len(context) + 1):
            found = excerpt(context, start, end)
            assert found.answer == context[start:end]
            assert context[:start].endswith(found.before)
            assert context[end:].startswith(found.after)


def test_text_without_sentences_is_shortened_around_the_answer() -> None:
    words = " ".join(f"word{number}" for number in range(400))
    shown = cut(words, "word200")
    assert "word199 [[word200]] word201" in shown
    assert shown.startswith("... word")
    assert shown.endswith(" ...")
    assert len(shown) < 400


def test_verdicts_differ_in_colour() -> None:
    found = excerpt("Rain falls.", 0, 4)
    shown = {found.marked(colour=True, verdict=verdict) for verdict in Verdict}
    assert len(shown) == len(Verdict)
    assert all(text.endswith("mRain\x1b[0m falls.") for text in shown)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Screen(), {}, True),
        (io.StringIO(), {}, False),
        (Screen(), {"NO_COLOR": "1"}, False),
        (Screen(), {"NO_COLOR": ""}, True),
        (Screen(), {"TERM": "dumb"}, False),
    ],
    ids=["terminal", "log", "NO_COLOR", "empty NO_COLOR", "dumb"],
)
def test_colours_are_for_terminals_that_want_them(
    stream: io.StringIO, environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert takes_colour(stream) is expected
