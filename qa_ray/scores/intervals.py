"""How sure a score is, and which of two models is better: the bootstrap over questions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from qa_ray.config.answering import NUM_RESAMPLES
from qa_ray.errors import DataError
from qa_ray.schema import Bools, Float64s, UInt8s
from qa_ray.scores.metrics import percent
from qa_ray.scores.question_table import QuestionTable

LEVEL = 0.95


# Bound the memory, in numbers of a byte and of eight: how often questions were drawn, as it is kept for whoever needs
# the same resamples again, as it is made where that is too much to be kept, and as it is multiplied.
_MOST_KEPT = 2**29
_DRAWN_AT_ONCE = 2**26
_MULTIPLIED_AT_ONCE = 2**21


class Interval(NamedTuple):
    """A mean, and the percentile interval of its resampled values; all NaN where there is nothing to average."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """By how much one model is better than another on the same questions."""

    mean: float
    low: float
    high: float
    share_better: float
    """Share of the resamples in which the first model is better; equal ones count half, those with no member do not."""


def bracketed(score: Interval | Difference, form: str = ".1f") -> str:
    """The interval as text, such as [48.7, 56.3]; empty where there is none."""
    return "" if np.isnan(score.low) else f"[{score.low:{form}}, {score.high:{form}}]"


def resampled_means(
    values: Float64s,
    members: Bools | None = None,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Float64s:
    """Means of resampled questions, [num_resamples, num_rows].

    Args:
        values: [num_rows, num_questions]; all rows are resampled alike, so that differences of rows are paired.
        members: which questions count in each row, of the same shape; without it, all.
        num_resamples: how often the questions are drawn.
        seed: equal seeds draw the same questions from equally many.

    A mean without any member is NaN.
    """
    num_rows, num_questions = values.shape
    # Rows about the same questions share their number.
    groups, group_of = np.ones((1, num_questions), bool), np.zeros(num_rows, np.int64)
    if members is not None:
        groups, group_of = np.unique(members, axis=0, return_inverse=True)
    parts = []
    for times in _times_drawn(num_questions, num_resamples, seed):
        sums = np.zeros((len(times), num_rows + len(groups)))
        step = max(1, _MULTIPLIED_AT_ONCE // len(times))
        for questions in (slice(begin, begin + step) for begin in range(0, num_questions, step)):
            inside = groups[:, questions].astype(np.float64)
            columns = np.concatenate([values[:, questions] * inside[group_of], inside])
            sums += times[:, questions].astype(np.float64) @ columns.T
        parts.append(sums)
    totals, numbers = np.split(np.concatenate(parts), [num_rows], axis=1)
    numbers = numbers[:, group_of]
    means: Float64s = np.divide(totals, numbers, out=np.full_like(totals, np.nan), where=numbers > 0)
    return means


def intervals(
    values: Float64s,
    members: Bools | None = None,
    *,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """The mean of each row with its confidence interval; arguments as in `resampled_means`."""
    samples = resampled_means(values, members, num_resamples=num_resamples, seed=seed)
    return _intervals(values, members, samples, level)


def paired_differences(
    one: Float64s,
    other: Float64s,
    members: Bools | None = None,
    *,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> list[Difference]:
    """Mean of one minus other in each row, with its confidence interval, over the same questions.

    one and other are [num_rows, num_questions] with the same question in the same column; else as `resampled_means`.
    """
    values = one - other
    samples = resampled_means(values, members, num_resamples=num_resamples, seed=seed)
    # NaN where a resample holds no member: it stays NaN, and is left out.
    better = np.heaviside(samples, 0.5)
    found = _intervals(values, members, samples, level)
    shares = [float(np.nanmean(row)) if np.isfinite(row).any() else np.nan for row in better.T]
    return [Difference(*interval, share) for interval, share in zip(found, shares, strict=True)]


def _intervals(values: Float64s, members: Bools | None, samples: Float64s, level: float) -> list[Interval]:
    inside = np.ones(values.shape, bool) if members is None else members
    tail = (1 - level) / 2
    found = []
    for row, chosen, sample in zip(values, inside, samples.T, strict=True):
        if np.isfinite(sample).any():
            low, high = np.nanquantile(sample, [tail, 1 - tail])
            found.append(Interval(float(row[chosen].mean()), float(low), float(high)))
        else:
            found.append(Interval(float(row[chosen].mean()) if chosen.any() else np.nan, np.nan, np.nan))
    return found


def _times_drawn(num_questions: int, num_resamples: int, seed: int) -> Iterable[UInt8s]:
    """How often each question is drawn in each resample: chunks of [resamples, num_questions]."""
    kept = num_questions * num_resamples <= _MOST_KEPT
    return _drawn_before(num_questions, num_resamples, seed) if kept else _draw(num_questions, num_resamples, seed)


@lru_cache(maxsize=1)
def _drawn_before(num_questions: int, num_resamples: int, seed: int) -> list[UInt8s]:
    return list(_draw(num_questions, num_resamples, seed))


def _draw(num_questions: int, num_resamples: int, seed: int) -> Iterator[UInt8s]:
    generator = np.random.default_rng(seed)
    per_chunk = max(1, _DRAWN_AT_ONCE // num_questions)
    for begin in range(0, num_resamples, per_chunk):
        # That one of many questions is drawn 256 times has a chance of less than 1e-500.
        times = np.empty((min(per_chunk, num_resamples - begin), num_questions), np.uint8)
        for row in times:
            row[:] = np.bincount(generator.integers(0, num_questions, num_questions), minlength=num_questions)
        yield times


@dataclass(frozen=True, slots=True)
class Flip:
    """A question that one of two models answers exactly, and the other does not."""

    row: int
    """In the tables of both."""
    won: bool
    """Whether it is the first model that is right."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model against another one on the same questions."""

    name: str
    """The other model's."""
    other: QuestionTable
    scores: Mapping[str, Interval]
    """Of the other model."""
    differences: Mapping[str, Difference]
    """The model's score minus the other's, in percentage points."""
    flips: tuple[Flip, ...]


def headline_scores(table: QuestionTable, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """exact_match and f1 in percent and, where no answer may be predicted, those of HasAns and NoAns as well."""
    names, values, members = _rows(table)
    found = intervals(100 * values, members, num_resamples=num_resamples, seed=seed)
    # As the metrics are summed: both then have the same digits.
    means = [percent(row[chosen]) for row, chosen in zip(values, members, strict=True)]
    return {name: score._replace(mean=mean) for name, score, mean in zip(names, found, means, strict=True)}


def compare(
    table: QuestionTable, other: QuestionTable, name: str, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Comparison:
    """Compare a model's answers with those of another one, which is called `name`.

    Raises:
        DataError: the two have not answered the same questions, or are not scored by the same rule.
    """
    require_same_questions(table.ids, other.ids)
    if table.language is not other.language:
        raise DataError(
            f"scores by {table.language.rule} and by {other.language.rule} cannot be compared: evaluate both with the "
            "same language"
        )
    names, values, members = _rows(table)
    others_values = 100 * _rows(other)[1]
    differences = paired_differences(100 * values, others_values, members, num_resamples=num_resamples, seed=seed)
    mine, others = table.scores.exact_match, other.scores.exact_match
    return Comparison(
        name=name,
        other=other,
        scores=headline_scores(other, num_resamples=num_resamples, seed=seed),
        differences=dict(zip(names, differences, strict=True)),
        flips=tuple(Flip(row, bool(mine[row] > others[row])) for row in np.flatnonzero(mine != others).tolist()),
    )


def require_same_questions(*ids: Sequence[str]) -> None:
    """Raise a DataError if models are to be compared, by the ids of their questions, that have not the same ones."""
    first, *others = map(list, ids)
    for other in others:
        if first != other:
            raise DataError(
                f"the two models cannot be compared on the same questions: {len(first)} and {len(other)} can be used, "
                f"of which {len(set(first) & set(other))} are the same. Mend or remove the rows that one of them "
                "cannot use"
            )


def verdict(difference: Difference, one: str, other: str) -> str:
    """Which of two models is better, as far as the interval of their difference tells."""
    if difference.low > 0 or difference.high < 0:
        better, side = (one, "above") if difference.low > 0 else (other, "below")
        return f"{better} is better: the 95% interval of the difference lies {side} 0"
    return "these questions do not tell which model is better: the 95% interval of the difference holds 0"


def _rows(table: QuestionTable) -> tuple[list[str], Float64s, Bools]:
    """Names, scores in [0, 1] and the questions that count, a row for each score."""
    groups = {"": np.ones(len(table), bool)}
    if table.no_answer:
        groups |= {"HasAns_": table.has_answer, "NoAns_": ~table.has_answer}
    groups = {prefix: group for prefix, group in groups.items() if group.any()}
    names = [f"{prefix}{score}" for prefix in groups for score in ("exact" if prefix else "exact_match", "f1")]
    values = np.tile(np.stack(table.scores), (len(groups), 1))
    return names, values, np.repeat(np.stack(list(groups.values())), 2, axis=0)
