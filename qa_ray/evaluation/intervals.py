"""How sure recorded scores are: their intervals, worked out again from recorded predictions and the references."""

from collections.abc import Mapping, Sequence

import numpy as np

from qa_ray.evaluation.bootstrap import Interval, intervals
from qa_ray.evaluation.metrics import squad_question_scores, squad_v2_question_scores

_TOLERANCE = 1e-6  # of two means of the same scores, in percent


def score_intervals(
    metrics: Mapping[str, float], predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, Interval] | None:
    """95% intervals of the recorded exact match and F1, in percent, with their HasAns and NoAns parts.

    Args:
        metrics: as recorded; with a threshold they are SQuAD v2.0's, else v1.1's, which leave out unanswerable ones.
        predictions: final answer of each question, empty where there is none.
        references: answers of each question; more questions than were predicted may be there.

    Returns:
        None if the recorded metrics are not those of these predictions and references: the data has changed since.
    """
    if not predictions.keys() <= references.keys():
        return None
    with_unanswerable = "threshold" in metrics
    scored = {key: references[key] for key in predictions if with_unanswerable or references[key]}
    scores = (squad_v2_question_scores if with_unanswerable else squad_question_scores)(predictions, scored)
    answerable = np.array([bool(texts) for texts in scored.values()])
    rows = {"exact_match": (scores.exact_match, answerable | True), "f1": (scores.f1, answerable | True)}
    for part, members in (("HasAns", answerable), ("NoAns", ~answerable)):
        if with_unanswerable and members.any():
            rows |= {f"{part}_exact": (scores.exact_match, members), f"{part}_f1": (scores.f1, members)}
    values, chosen = (np.stack(column) for column in zip(*rows.values(), strict=True))
    found = dict(zip(rows, intervals(100 * values, chosen), strict=True))
    same = all(abs(metrics[name] - interval.mean) <= _TOLERANCE for name, interval in found.items())
    return found if same else None
