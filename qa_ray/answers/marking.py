"""An answer shown within its sentence: in colour on a terminal, in brackets elsewhere."""

import os
import re
from enum import StrEnum
from typing import NamedTuple, TextIO

# A mark that ends a sentence, with the quotes or brackets that it may close, before the blank that follows.
_SENTENCE_END = re.compile(r"[.!?。][\"'»”)\]]*(?=\s)|\n")
_MOST_BESIDE = 160
"""Characters shown on either side of an answer: a text may have no sentences."""
RESET = "\x1b[0m"
NO_ANSWER = "no answer"
"""Is shown where a model gives none."""


class Verdict(StrEnum):
    """What is known of an answer; the value is the ANSI code that it is shown with."""

    UNKNOWN = "\x1b[1m"
    RIGHT = "\x1b[1;32m"
    PARTLY = "\x1b[1;33m"
    WRONG = "\x1b[1;31m"


class Excerpt(NamedTuple):
    """The sentence of an answer, in three pieces."""

    before: str
    answer: str
    after: str

    def marked(self, *, colour: bool, verdict: Verdict = Verdict.UNKNOWN) -> str:
        """The sentence in one line, with its answer marked."""
        answer = f"{verdict.value}{self.answer}{RESET}" if colour else f"[[{self.answer}]]"
        return " ".join(f"{self.before}{answer}{self.after}".split())


def excerpt(context: str, start: int, end: int) -> Excerpt:
    """Cut the sentence, or the sentences, around context[start:end]; one that is very long is shortened."""
    begin = max((match.end() for match in _SENTENCE_END.finditer(context, 0, start)), default=0)
    # An answer may hold its sentence's end.
    match = _SENTENCE_END.search(context, max(start, end - 1))
    before, after = context[begin:start].lstrip(), context[end : match.end() if match else len(context)].rstrip()
    if len(before) > _MOST_BESIDE:
        before = "... " + before[-_MOST_BESIDE:].partition(" ")[2]
    if len(after) > _MOST_BESIDE:
        after = after[:_MOST_BESIDE].rpartition(" ")[0] + " ..."
    return Excerpt(before, context[start:end], after)


def takes_colour(stream: TextIO) -> bool:
    """Whether colours are wanted there: on a terminal, unless NO_COLOR or TERM=dumb says otherwise."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
