"""The headline scores of a model with their confidence intervals, and two models side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qa_ray.errors import DataError
from qa_ray.evaluation.bootstrap import NUM_RESAMPLES, Difference, Interval, intervals, paired_differences
from qa_ray.evaluation.questions import QuestionTable


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
    found = intervals(values, members, num_resamples=num_resamples, seed=seed)
    return dict(zip(names, found, strict=True))


def compare(
    table: QuestionTable, other: QuestionTable, name: str, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Comparison:
    """Compare a model's answers with those of another one, which is called `name`.

    Raises:
        DataError: the two have not answered the same questions.
    """
    require_same_questions(table.ids, other.ids)
    names, values, members = _rows(table)
    differences = paired_differences(values, _rows(other)[1], members, num_resamples=num_resamples, seed=seed)
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


def _rows(table: QuestionTable) -> tuple[list[str], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Names, scores in percent and the questions that count, a row for each score."""
    groups = {"": np.ones(len(table), bool)}
    if table.threshold is not None:
        groups |= {"HasAns_": table.has_answer, "NoAns_": ~table.has_answer}
    groups = {prefix: group for prefix, group in groups.items() if group.any()}
    names = [f"{prefix}{score}" for prefix in groups for score in ("exact" if prefix else "exact_match", "f1")]
    values = np.tile(100 * np.stack(table.scores), (len(groups), 1))
    return names, values, np.repeat(np.stack(list(groups.values())), 2, axis=0)
