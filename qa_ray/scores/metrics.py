"""SQuAD v1.1 and v2.0 scores of predicted answer texts, as the official evaluation scripts define them.

With another language the texts are compared by MLQA's rule for it; what is made of these comparisons is the same.

Two questions are settled differently: a missing prediction is an error, not a zero, and the best no-answer threshold
is searched over all cut points, where the official sweep also counts cuts between equal no-answer scores.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from qa_ray.config.policies import Language
from qa_ray.errors import DataError
from qa_ray.schema import Bools, Float64s
from qa_ray.scores.normalization import normalize

_SHOWN_IDS = 5


class QuestionScores(NamedTuple):
    """Scores of single questions in [0, 1], in the order of the references; both [num_questions]."""

    exact_match: Float64s
    f1: Float64s


def exact_match(prediction: str, references: Sequence[str], language: Language = Language.SQUAD) -> float:
    """1.0 if the prediction equals one of the references after normalisation, else 0.0."""
    normalized = normalize(prediction, language)
    return float(any(normalized == normalize(reference, language) for reference in references))


def f1(
    prediction: str, references: Sequence[str], language: Language = Language.SQUAD, *, both_empty: float = 1.0
) -> float:
    """The best F1 of words, in [0, 1], of the prediction against any of the references.

    Where both normalise to nothing the score is both_empty: 1 in SQuAD v2.0, but 0 in v1.1 and MLQA.
    """
    words = normalize(prediction, language).split()
    return max(_word_f1(words, normalize(reference, language).split(), both_empty) for reference in references)


def squad_scores(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], language: Language = Language.SQUAD
) -> dict[str, float]:
    """SQuAD v1.1 exact_match and f1 in percent, and total, over the ids of the references.

    Raises DataError for an id without a prediction or without a reference text, and for no ids at all.
    """
    return total_scores(squad_question_scores(predictions, references, language))


def total_scores(scores: QuestionScores) -> dict[str, float]:
    """What `squad_scores` makes of the scores of each question."""
    exacts, f1s = scores
    return {"exact_match": percent(exacts), "f1": percent(f1s), "total": len(exacts)}


def squad_question_scores(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], language: Language = Language.SQUAD
) -> QuestionScores:
    """SQuAD v1.1 scores of each question; raises as `squad_scores` does."""
    _require(references, predictions, "prediction")
    unanswerable = [id_ for id_, texts in references.items() if not texts]
    if unanswerable:
        raise DataError(f"{_named(unanswerable)} without a reference answer: score them as SQuAD v2.0")
    return QuestionScores(
        np.array([exact_match(predictions[id_], texts, language) for id_, texts in references.items()]),
        np.array([f1(predictions[id_], texts, language, both_empty=0.0) for id_, texts in references.items()]),
    )


def squad_v2_scores(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    no_answer_scores: Mapping[str, float],
    threshold: float | None = None,
    language: Language = Language.SQUAD,
) -> dict[str, float]:
    """SQuAD v2.0 scores in percent at a no-answer threshold, and the best thresholds for exact match and F1.

    predictions holds the best non-empty answer of each id, references an empty sequence for an unanswerable one, and
    no_answer_scores the null score minus the best span's score: an id above the threshold is predicted unanswerable.
    threshold=None uses the best one for F1. As in the official script, HasAns_* and NoAns_* are left out if there are
    no such questions. Raises DataError for an id without a prediction or a no-answer score, and for no ids at all.
    """
    return total_v2_scores(
        squad_v2_question_scores(predictions, references, language), references, no_answer_scores, threshold
    )


def total_v2_scores(
    scores: QuestionScores,
    references: Mapping[str, Sequence[str]],
    no_answer_scores: Mapping[str, float],
    threshold: float | None = None,
) -> dict[str, float]:
    """What `squad_v2_scores` makes of the scores of each question's best non-empty answer."""
    exacts, f1s = scores
    has_answer = np.array([len(texts) > 0 for texts in references.values()])
    _require(references, no_answer_scores, "no-answer score")
    null = np.array([no_answer_scores[id_] for id_ in references], dtype=np.float64)
    if np.isnan(null).any():
        nan_ids = [id_ for id_, score in zip(references, null, strict=True) if math.isnan(score)]
        raise DataError(f"{_named(nan_ids)} with a no-answer score that is not a number: the logits hold NaN")

    best_exact = best_threshold(exacts, has_answer, null)
    best_f1 = best_threshold(f1s, has_answer, null)
    chosen = best_f1 if threshold is None else threshold
    exact_at, f1_at = (at_threshold(scores, has_answer, null, chosen) for scores in (exacts, f1s))
    result = total_scores(QuestionScores(exact_at, f1_at))
    for name, group in (("HasAns", has_answer), ("NoAns", ~has_answer)):
        if group.any():
            result[f"{name}_exact"] = percent(exact_at[group])
            result[f"{name}_f1"] = percent(f1_at[group])
            result[f"{name}_total"] = int(group.sum())
    return result | {
        "best_exact": percent(at_threshold(exacts, has_answer, null, best_exact)),
        "best_exact_thresh": best_exact,
        "best_f1": percent(at_threshold(f1s, has_answer, null, best_f1)),
        "best_f1_thresh": best_f1,
        "threshold": chosen,
    }


def squad_v2_question_scores(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], language: Language = Language.SQUAD
) -> QuestionScores:
    """SQuAD v2.0 scores of each question's best non-empty answer, before any threshold; see `at_threshold`.

    Raises DataError for an id without a prediction, and for no ids at all.
    """
    _require(references, predictions, "prediction")
    golds = [[text for text in texts if normalize(text, language)] or [""] for texts in references.values()]
    return QuestionScores(
        np.array([exact_match(predictions[id_], gold, language) for id_, gold in zip(references, golds, strict=True)]),
        np.array([f1(predictions[id_], gold, language) for id_, gold in zip(references, golds, strict=True)]),
    )


def at_threshold(scores: Float64s, has_answer: Bools, no_answer_scores: Float64s, threshold: float) -> Float64s:
    """Scores where questions above the threshold are predicted unanswerable; all [N], as in `best_threshold`."""
    return np.where(no_answer_scores > threshold, ~has_answer, scores)


def best_threshold(scores: Float64s, has_answer: Bools, no_answer_scores: Float64s) -> float:
    """The finite no-answer threshold with the greatest sum of scores; of several the nearest to 0.

    All arguments are [N]; scores are those of the non-empty answers. An example above the threshold scores 1 if it is
    unanswerable and 0 if not. The threshold lies midway between two no-answer scores, or 1 beyond the outermost.
    """
    finite = np.isfinite(no_answer_scores)
    if not finite.any():
        return 0.0
    distinct, place = np.unique(no_answer_scores[finite], return_inverse=True)
    # What the sum gains when the examples of one no-answer score go from unanswerable to answered.
    gains = np.bincount(place, (scores - ~has_answer)[finite])
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    thresholds = _cut_points(distinct)
    sums = np.where(np.isfinite(thresholds), sums, -np.inf)
    # F1 sums that are equal but for rounding are ties.
    best = thresholds[sums >= sums.max() - 1e-9]
    return float(best[np.argmin(np.abs(best))])


def percent(scores: Iterable[float]) -> float:
    """Mean of scores in [0, 1], in percent; the sum is exact, so their order does not matter."""
    values = list(scores)
    return 100.0 * math.fsum(values) / len(values)


def _cut_points(distinct: Float64s) -> Float64s:
    """Thresholds below, between and above ascending values: [K] -> [K + 1], -inf where no float lies below."""
    lower, upper = distinct[:-1], distinct[1:]
    middle = lower / 2 + upper / 2
    # Between neighbouring floats the middle may round up, and the cut would then fall above `upper`.
    between = np.where((middle >= lower) & (middle < upper), middle, lower)
    with np.errstate(over="ignore"):
        below = min(distinct[0] - 1, np.nextafter(distinct[0], -np.inf))
    return np.concatenate([[below], between, [distinct[-1] + 1]])


def _word_f1(words: Sequence[str], reference: Sequence[str], both_empty: float) -> float:
    if not words and not reference:
        return both_empty
    num_same = (Counter(words) & Counter(reference)).total()
    return 2 * num_same / (len(words) + len(reference))


def _require(references: Mapping[str, Sequence[str]], given: Mapping[str, object], noun: str) -> None:
    if not references:
        raise DataError("nothing to score: there are no references")
    missing = [id_ for id_ in references if id_ not in given]
    if missing:
        raise DataError(f"{_named(missing)} without a {noun}: predict every question of the references")


def _named(ids: Sequence[str]) -> str:
    shown = ", ".join(map(repr, ids[:_SHOWN_IDS]))
    return f"{len(ids)} ids ({shown}{', ...' if len(ids) > _SHOWN_IDS else ''})"
