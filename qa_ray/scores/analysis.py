"""Where a model is right and where it is not: by kinds of questions, by its own probability, by no-answer threshold."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from qa_ray.config.answering import NUM_RESAMPLES
from qa_ray.schema import Float64s, Int64s
from qa_ray.scores.intervals import Interval, intervals
from qa_ray.scores.question_table import QuestionTable

NO_ANSWER = "no answer"
_QUESTION_WORDS = ("who", "what", "when", "where", "why", "how", "which", "other")
_QUESTION_WORD = re.compile(r"\b(who|whom|whose|what|when|where|why|how|which)\b", re.IGNORECASE)
_ANSWER_WORDS = (1, 2, 3, 5, 10)
_CONTEXT_LENGTHS = {"tokens": (64, 128, 192, 256, 384, 512), "characters": (250, 500, 750, 1000, 1500, 2000)}
_WINDOWS = (1, 2, 3)
FEWEST = 10
"""Slices of fewer questions get no interval: resamples of so few are too much alike, and it would be too narrow."""
_FIFTHS = ("first fifth", "second fifth", "third fifth", "fourth fifth", "last fifth")


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way to divide the questions; each is in exactly one slice, and no slice is empty."""

    name: str
    labels: tuple[str, ...]
    slice_of: Int64s
    """Slice of each question, as a place among the labels, [num_questions]."""


class Slice(NamedTuple):
    """The scores of one slice in percent."""

    label: str
    number: int
    exact_match: Interval
    f1: Interval


class Bin(NamedTuple):
    """Questions whose prediction has about the same probability."""

    number: int
    probability: float
    """Mean over the bin."""
    share_right: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the probability of the predictions compares with how often they are right (exact match)."""

    bins: tuple[Bin, ...]
    """Those of equal width in which there are questions."""
    expected_error: float
    """Mean distance of probability and share, weighted by questions (Guo et al. 2017, arXiv:1706.04599)."""


class ThresholdCurve(NamedTuple):
    """Scores in percent at no-answer thresholds, ascending; all [num_points]."""

    threshold: Float64s
    exact_match: Float64s
    f1: Float64s


class PrecisionRecall(NamedTuple):
    """Precision and recall when ever more questions are answered, the least sure of "no answer" first; shares."""

    recall: Float64s
    precision: Float64s
    average_precision: float


def groupings(table: QuestionTable) -> list[Grouping]:
    """All ways in which the questions are divided."""
    found = {
        "Question word": ([_word_place(text) for text in table.texts], _QUESTION_WORDS),
        "Answer length": _answer_lengths(table),
        "Context length": _between(table.context_length, _CONTEXT_LENGTHS[table.unit], table.unit),
        "Answer position": _positions(table),
    }
    if table.num_windows is not None:
        found["Windows"] = _between(table.num_windows, _WINDOWS, "windows")
    return [_grouping(name, np.asarray(places, np.int64), labels) for name, (places, labels) in found.items()]


def slice_scores(
    table: QuestionTable, found: Sequence[Grouping], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> list[list[Slice]]:
    """Scores of each slice of each grouping with their intervals, which are NaN for fewer than FEWEST questions."""
    members = np.concatenate([np.arange(len(one.labels))[:, None] == one.slice_of for one in found])
    rows = np.repeat(100 * np.stack(table.scores), len(members), axis=0)
    scored = intervals(rows, np.concatenate([members, members]), num_resamples=num_resamples, seed=seed)
    numbers = members.sum(axis=1).tolist()
    shown = [
        score if number >= FEWEST else Interval(score.mean, np.nan, np.nan)
        for score, number in zip(scored, 2 * numbers, strict=True)
    ]
    labels = chain.from_iterable(one.labels for one in found)
    slices = map(Slice, labels, numbers, shown[: len(members)], shown[len(members) :])
    return [list(islice(slices, len(one.labels))) for one in found]


def calibrate(probability: Float64s, right: Float64s, num_bins: int = 10) -> Calibration:
    """Compare probabilities with outcomes (1 right, 0 wrong), both [num_questions], in bins of equal width."""
    place = np.minimum((probability * num_bins).astype(np.int64), num_bins - 1)
    numbers = np.bincount(place, minlength=num_bins)
    filled = numbers > 0
    means, shares = (
        np.bincount(place, column, minlength=num_bins)[filled] / numbers[filled] for column in (probability, right)
    )
    error = float(numbers[filled] @ np.abs(means - shares) / len(probability))
    rows = zip(numbers[filled].tolist(), means.tolist(), shares.tolist(), strict=True)
    return Calibration(tuple(Bin(*row) for row in rows), error)


def threshold_curve(table: QuestionTable, null_odds: Float64s, max_points: int = 400) -> ThresholdCurve:
    """Scores at no-answer thresholds: at each null odds, or at `max_points` of them spread evenly."""
    order = np.argsort(null_odds, kind="stable")
    odds, has_answer = null_odds[order], table.has_answer[order]
    # A question counts with its answer's score from the threshold on that equals its odds; before, with "no answer".
    last = np.flatnonzero(np.append(np.diff(odds) > 0, True) & np.isfinite(odds))
    last = last[spread(len(last), max_points)]
    silent = np.sum(~has_answer)
    curves = [100 * (silent + np.cumsum(score[order] - ~has_answer)[last]) / len(odds) for score in table.answered]
    return ThresholdCurve(odds[last], *curves)


def precision_recall(table: QuestionTable, null_odds: Float64s, max_points: int = 400) -> PrecisionRecall:
    """The curve of F1, as the official SQuAD v2.0 script defines it: a true positive counts as much as its F1."""
    order = np.argsort(null_odds, kind="stable")
    odds = null_odds[order]
    positives = np.cumsum(np.where(table.has_answer, table.answered.f1, 0.0)[order])
    last = np.flatnonzero(np.append(np.diff(odds) > 0, True))
    precision = positives[last] / (last + 1)
    recall = positives[last] / max(int(table.has_answer.sum()), 1)
    average = float(precision @ np.diff(recall, prepend=0.0))
    shown = spread(len(last), max_points)
    return PrecisionRecall(np.append(0.0, recall[shown]), np.append(1.0, precision[shown]), average)


def worst_errors(table: QuestionTable, limit: int) -> list[int]:
    """Questions that are not answered exactly: by F1, lowest first, then by probability, the surest first, if known."""
    wrong = np.flatnonzero(table.scores.exact_match < 1)
    sureness = np.zeros(len(table)) if table.probability is None else table.probability
    order = np.lexsort((-sureness[wrong], table.scores.f1[wrong]))
    chosen: list[int] = wrong[order[:limit]].tolist()
    return chosen


def spread(number: int, most: int) -> Int64s:
    """At most `most` places among `number`, spread evenly, the first and the last with them."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(np.int64))


def _grouping(name: str, places: Int64s, labels: Sequence[str]) -> Grouping:
    used, slice_of = np.unique(places, return_inverse=True)
    return Grouping(name, tuple(labels[place] for place in used), slice_of)


def _word_place(text: str) -> int:
    found = _QUESTION_WORD.search(text)
    word = found.group().lower() if found else "other"
    return _QUESTION_WORDS.index("who" if word in ("whom", "whose") else word)


def _answer_lengths(table: QuestionTable) -> tuple[Int64s, tuple[str, ...]]:
    words = np.array([len(texts[0].split()) if texts else 0 for texts in table.references])
    places, labels = _between(words, _ANSWER_WORDS, "words")
    return np.where(table.has_answer, places, len(labels)), (*labels, NO_ANSWER)


def _positions(table: QuestionTable) -> tuple[Int64s, tuple[str, ...]]:
    share = table.answer_first / np.maximum(table.context_length, 1)
    places = np.clip((share * len(_FIFTHS)).astype(np.int64), 0, len(_FIFTHS) - 1)
    return np.where(table.has_answer, places, len(_FIFTHS)), (*_FIFTHS, NO_ANSWER)


def _between(values: Int64s, limits: Sequence[int], unit: str) -> tuple[Int64s, tuple[str, ...]]:
    """Place of each value among ranges that end with the limits, inclusive, and the ranges' labels."""
    begins = [1, *(limit + 1 for limit in limits[:-1])]
    ranges = [f"{begin}" if begin == end else f"{begin}\u2013{end}" for begin, end in zip(begins, limits, strict=True)]
    labels = [f"{words} {unit.removesuffix('s') if words == '1' else unit}" for words in ranges]
    return np.searchsorted(limits, values), (*labels, f"over {limits[-1]} {unit}")
