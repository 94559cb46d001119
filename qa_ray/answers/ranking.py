"""From an example's scored spans to the answers that people see: trimmed, distinct, and with probabilities."""

import math
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypedDict


class Span(NamedTuple):
    """A scored span of a context."""

    score: float
    """Start logit plus end logit."""
    start: int
    """First character."""
    end: int
    """Place after the last character."""


class Answered(TypedDict):
    """One answer: `answer` is context[start:end], and empty with start = end = 0 where the context holds none."""

    score: float
    start: int
    end: int
    answer: str


def distinct_spans(spans: Iterable[Span], context: str, *, limit: int, align_to_words: bool) -> list[Span]:
    """The first `limit` spans at different places, without the space around them; blank ones are left out."""
    return list(islice(_distinct(spans, context, align_to_words), limit))


def rank(
    spans: list[Span], context: str, *, limit: int, log_partition: float, null_score: float | None
) -> list[Answered]:
    """Return the `limit` best answers with their probabilities; one empty answer of score 0 where there is none at all.

    Args:
        spans: best first.
        context: where they stand.
        limit: number of answers.
        log_partition: log of the summed exp(score) of all legal spans.
        null_score: score of "no answer", which joins the spans and the sum; None where there always is an answer.
    """
    found = list(spans)
    if null_score is not None:
        found.append(Span(null_score, 0, 0))
        # Stable: where "no answer" is as good as a span, the span is given.
        found.sort(key=lambda span: -span.score)
        log_partition = _log_add(log_partition, null_score)
    answers = [
        Answered(score=min(math.exp(score - log_partition), 1.0), start=start, end=end, answer=context[start:end])
        for score, start, end in found[:limit]
    ]
    return answers or [Answered(score=0.0, start=0, end=0, answer="")]


def _distinct(spans: Iterable[Span], context: str, align_to_words: bool) -> Iterator[Span]:
    seen = set()
    for score, start, end in spans:
        text = context[start:end]
        if not text.strip():
            continue
        start, end = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
        if align_to_words:
            start, end = _widen(context, start, end)
        if (start, end) not in seen:
            seen.add((start, end))
            yield Span(score, start, end)


def _widen(context: str, start: int, end: int) -> tuple[int, int]:
    """The span with the rest of the words in which it begins and ends; words are runs of letters, digits and marks."""
    while start > 0 and _in_word(context[start - 1]) and _in_word(context[start]):
        start -= 1
    while end < len(context) and _in_word(context[end - 1]) and _in_word(context[end]):
        end += 1
    return start, end


def _in_word(character: str) -> bool:
    return character.isalnum() or unicodedata.combining(character) > 0


def _log_add(one: float, other: float) -> float:
    larger, smaller = max(one, other), min(one, other)
    return larger + math.log1p(math.exp(smaller - larger))
