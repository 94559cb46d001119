"""Ask a model about a text, and see the answer marked in its sentence.

The answerer brings torch, so it is imported once there is something to ask.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import tyro

from qa_ray.errors import DataError, require

if TYPE_CHECKING:
    from qa_ray.answers import QuestionAnswerer
    from qa_ray.schema import Answered

_STDIN = "-"


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """Ask a fine-tuned model about a text; without QUESTION, as often as you like. It needs no cluster."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Folder of a run or a model, Hub id, or MLflow URI (models:/NAME@ALIAS, runs:/ID/PATH)."""
    question: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="QUESTION")] = None
    """What you want to know; without one, questions are asked for on the terminal."""
    context: str | None = None
    """Text file that is searched for the answer; - is standard input."""
    text: str | None = None
    """The text itself, in place of a file."""
    top_k: int = 1
    """Answers that are shown, best first."""
    trust_remote_code: bool = False
    """Runs Python code that comes with the model. Only for models whose code you have read."""

    def __post_init__(self) -> None:
        require(bool(self.model), "MODEL is empty: name a folder, a Hub id or an MLflow URI")
        require(self.question is None or bool(self.question.strip()), "QUESTION is empty: ask something")
        require((self.context is None) != (self.text is None), "name the text: --context FILE, or --text TEXT")
        require(self.text is None or bool(self.text.strip()), "--text is empty: give the text that holds the answer")
        require(self.top_k >= 1, f"--top-k={self.top_k} must be at least 1")
        require(
            self.context != _STDIN or self.question is not None,
            "--context - reads the text from standard input, where questions would come from: write QUESTION too",
        )


def converse(options: AskOptions) -> None:
    """Answer the question, or each one that is typed.

    Raises:
        UserError: the model or the text cannot be used.
    """
    text = _read(options)
    from transformers.utils.logging import disable_progress_bar

    from qa_ray.answers import QuestionAnswerer

    disable_progress_bar()
    answerer = QuestionAnswerer.from_pretrained(options.model, trust_remote_code=options.trust_remote_code)
    for question in _questions(options):
        print(_shown(answerer, question, text, options.top_k))


def _read(options: AskOptions) -> str:
    if options.text is not None:
        return options.text
    place = str(options.context)
    try:
        text = sys.stdin.read() if place == _STDIN else Path(place).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"--context={place} is no text in UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"--context={place} cannot be read: {error.strerror}: name a text file") from None
    if not text.strip():
        raise DataError(f"--context={place} is empty: name a text that holds the answer")
    return text


def _questions(options: AskOptions) -> Iterator[str]:
    if options.question is not None:
        yield options.question
        return
    typed = sys.stdin.isatty()
    if typed:
        print("Ask about the text; an empty line ends.", file=sys.stderr)
    while True:
        try:
            question = input("? " if typed else "").strip()
        except EOFError:
            return
        if not question and typed:
            return
        if question:
            yield question


def _shown(answerer: "QuestionAnswerer", question: str, text: str, top_k: int) -> str:
    """Each answer in its sentence, with its probability."""
    from qa_ray.answers.marking import NO_ANSWER, excerpt, takes_colour

    found = cast("Answered | list[Answered]", answerer(question, text, top_k=top_k))
    lines = []
    for answer in found if isinstance(found, list) else [found]:
        place = excerpt(text, answer["start"], answer["end"])
        shown = place.marked(colour=takes_colour(sys.stdout)) if answer["answer"] else NO_ANSWER
        lines.append(f"{answer['score']:7.1%}  {shown}")
    return "\n".join(lines)
