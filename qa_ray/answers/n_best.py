"""The n best answers of questions, with their probabilities and "no answer" among them; ranked as people see them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from qa_ray.answers.decode import Candidates, probabilities
from qa_ray.data.characters import whole_words
from qa_ray.data.corpus import Corpus
from qa_ray.schema import Answered, Float32s, Int64s, Prediction

_QUESTIONS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class NullSpans:
    """Each example's "no answer": the lowest-scored CLS span over its windows; arrays [num_examples]."""

    example: Int64s
    start_logit: Float32s
    end_logit: Float32s

    @property
    def score(self) -> Float32s:
        """Start logit plus end logit, added up as those of `Candidates`: a tie is one wherever it is looked at."""
        return self.start_logit + self.end_logit

    @classmethod
    def of(cls, example: Int64s, start_logit: Float32s, end_logit: Float32s) -> Self:
        """Choose among windows, [num_windows]: an answer may stand in any, so the least sure of "no answer" counts."""
        order = np.lexsort((start_logit + end_logit, example))
        chosen = order[np.unique(example[order], return_index=True)[1]]
        return cls(example[chosen], start_logit[chosen], end_logit[chosen])


class Columns(NamedTuple):
    """Candidates one below the other, in the columns of `Prediction`."""

    text: list[str]
    probability: list[float]
    start_logit: list[float]
    end_logit: list[float]


@dataclass(frozen=True, slots=True)
class Spans:
    """The n-best spans of a split, as arrays; texts are cut out of their contexts when they are asked for."""

    corpus: Corpus
    candidates: Candidates
    chances: Float32s
    """Probability of each candidate."""
    null: NullSpans
    """In the order of the questions."""
    null_chances: Float32s | None
    """Probability of "no answer" of each question, where it is allowed."""
    best_rows: Int64s
    """The row of each question's best candidate whose text is not blank, -1 without one."""
    best_texts: Sequence[str]
    """Their texts, empty without one."""

    def n_best(self) -> dict[str, list[Prediction]]:
        """All candidates of each question id, best first, with "no answer" among them where it is allowed."""
        ids = iter(self.corpus.ids())
        found: dict[str, list[Prediction]] = {}
        for counts, columns in self.parts():
            made = map(Prediction, *columns)
            found |= {key: list(islice(made, count)) for count, key in zip(counts, ids, strict=False)}
        return found

    def parts(self) -> Iterator[tuple[list[int], Columns]]:
        """The same in the columns of `Prediction`, some questions at a time, and each question's number of candidates.

        Never are all texts in memory.
        """
        bounds = np.searchsorted(self.candidates.example, np.arange(len(self.corpus) + 1))
        contexts = self.corpus.contexts()
        for begin in range(0, len(self.corpus), _QUESTIONS_AT_ONCE):
            asked = np.arange(begin, min(begin + _QUESTIONS_AT_ONCE, len(self.corpus)))
            rows = slice(*bounds[[begin, asked[-1] + 1]].tolist())
            texts = _texts(self.corpus, contexts, self.candidates, rows)
            question, columns = self.candidates.example[rows], [column[rows] for column in self._numbers]
            if self.null_chances is not None:
                nulls = (self.null_chances, self.null.start_logit, self.null.end_logit)
                texts += [""] * len(asked)
                question = np.append(question, asked)
                columns = [np.append(column, null[asked]) for column, null in zip(columns, nulls, strict=True)]
                # Infinite logits have no probability, and are the best all the same.
                order = np.lexsort((-np.nan_to_num(columns[0], nan=np.inf), question))
                texts, columns = [texts[row] for row in order.tolist()], [column[order] for column in columns]
            counts = np.bincount(question - begin, minlength=len(asked)).tolist()
            yield counts, Columns(texts, *(column.tolist() for column in columns))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The candidates and null spans, by name: what they can be made from again."""
        candidates = {f"candidates.{name}": getattr(self.candidates, name) for name in Candidates.__slots__}
        return candidates | {f"null.{name}": getattr(self.null, name) for name in NullSpans.__slots__}

    @property
    def _numbers(self) -> tuple[Float32s, Float32s, Float32s]:
        return self.chances, self.candidates.start_logit, self.candidates.end_logit


def find_spans(corpus: Corpus, candidates: Candidates, null: NullSpans, *, no_answer: bool) -> Spans:
    """Join candidates and null spans, given in any order of the questions, and compute their probabilities."""
    order = np.argsort(null.example)
    null = NullSpans(null.example[order], null.start_logit[order], null.end_logit[order])
    chances, null_chances = probabilities(candidates, null.score if no_answer else None)
    return Spans(corpus, candidates, chances, null, null_chances, *_best(corpus, candidates))


def _best(corpus: Corpus, candidates: Candidates) -> tuple[Int64s, list[str]]:
    """Row and text of each question's best candidate whose text is not blank, or -1 and nothing."""
    bounds = np.searchsorted(candidates.example, np.arange(len(corpus) + 1))
    rows, ends = bounds[:-1].copy(), bounds[1:]
    texts, contexts = [""] * len(corpus), corpus.contexts()
    sought = np.arange(len(corpus))
    while len(sought):
        over = rows[sought] == ends[sought]
        rows[sought[over]] = -1
        sought = sought[~over]
        found = _texts(corpus, contexts, candidates, rows[sought])
        blank = []
        for question, text in zip(sought.tolist(), found, strict=True):
            if text.strip():
                texts[question] = text
            else:
                blank.append(question)
        sought = np.array(blank, np.int64)
        rows[sought] += 1
    return rows, texts


def _texts(corpus: Corpus, contexts: Sequence[str], candidates: Candidates, rows: Int64s | slice) -> list[str]:
    """The texts of candidates without the space around them; one that is nothing but space stays as it is."""
    question = candidates.example[rows]
    begins, ends = corpus.characters(question, candidates.first_token[rows], candidates.last_token[rows])
    places = zip(question.tolist(), begins.tolist(), ends.tolist(), strict=True)
    # A span may begin or end with a token of nothing but space, or be one.
    texts = (contexts[number][begin:end] for number, begin, end in places)
    return [text.strip() or text for text in texts]


class Span(NamedTuple):
    """A scored span of a context."""

    score: float
    """Start logit plus end logit."""
    start: int
    """First character."""
    end: int
    """Place after the last character."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a model finds for a question in one context."""

    context: str
    spans: list[Span]
    """At different places, best first."""
    log_partition: float
    """Log of the summed exp(score) of all legal spans."""
    null_score: float


def distinct_spans(spans: Iterable[Span], context: str, *, limit: int, align_to_words: bool) -> list[Span]:
    """The first `limit` spans at different places, without the space around them; blank ones are left out."""
    return list(islice(_distinct(spans, context, align_to_words), limit))


def rank(found: Sequence[Found], *, limit: int, threshold: float | None) -> list[Answered]:
    """Return the `limit` best answers with their probabilities; one empty answer of score 0 where there is none at all.

    Several contexts are to a question what windows are to a context: their spans compete, and the lowest null score
    counts, since an answer may stand in any. The order of the contexts decides only between equal scores.

    Args:
        found: what stands in each context of one question.
        limit: number of answers.
        threshold: "no answer" comes before a span where its score less the span's is above it, as in evaluation; less
            the threshold, its score joins the sum. None where there always is an answer.
    """
    spans: list[tuple[Span, int | None]] = [(span, place) for place, one in enumerate(found) for span in one.spans]
    spans.sort(key=lambda item: -item[0].score)
    log_partition = reduce(_log_add, (one.log_partition for one in found))
    if threshold is not None:
        null_score = min(one.null_score for one in found)
        number = next((n for n, (span, _) in enumerate(spans) if null_score - span.score > threshold), len(spans))
        spans.insert(number, (Span(null_score - threshold, 0, 0), None))
        log_partition = _log_add(log_partition, null_score - threshold)
    answers = [
        Answered(
            score=min(math.exp(score - log_partition), 1.0),
            start=start,
            end=end,
            answer="" if place is None else found[place].context[start:end],
            context=place,
        )
        for (score, start, end), place in spans[:limit]
    ]
    return answers or [Answered(score=0.0, start=0, end=0, answer="", context=None)]


def _distinct(spans: Iterable[Span], context: str, align_to_words: bool) -> Iterator[Span]:
    seen = set()
    for score, start, end in spans:
        text = context[start:end]
        if not text.strip():
            continue
        start, end = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
        if align_to_words:
            start, end = whole_words(context, start, end)
        if (start, end) not in seen:
            seen.add((start, end))
            yield Span(score, start, end)


def _log_add(one: float, other: float) -> float:
    larger, smaller = max(one, other), min(one, other)
    return larger + math.log1p(math.exp(smaller - larger))
