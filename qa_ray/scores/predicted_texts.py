"""The scores of predicted texts of which nothing else is known, and a table of them as of a model's answers."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from qa_ray.config.policies import Language
from qa_ray.schema import Passage, Question
from qa_ray.scores.metrics import (
    QuestionScores,
    at_threshold,
    squad_question_scores,
    squad_v2_question_scores,
    total_scores,
    total_v2_scores,
)
from qa_ray.scores.question_table import QuestionTable

_NOWHERE = (-1, -1)


class ScoredTexts(NamedTuple):
    """Predicted texts, and how good they are."""

    metrics: Mapping[str, float]
    """exact_match and f1 in percent, and total; where no answer is allowed, what SQuAD v2.0 has besides."""
    table: QuestionTable


def score_texts(
    passages: Sequence[Passage],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None,
    *,
    no_answer: bool,
    threshold: float | None,
    language: Language,
) -> ScoredTexts:
    """Score predictions as the official scripts do.

    Args:
        passages: the questions with their reference answers.
        predictions: a text for each question id; empty where no answer is predicted.
        null_odds: the no-answer score of each question id, whatever its scale.
        no_answer: whether unanswerable questions count (SQuAD v2.0), or are left out (v1.1).
        threshold: null odds above which no answer is predicted, whatever the text is; None: the texts decide.
        language: the rule by which texts are compared.
    """
    rows = [
        (passage.context, question)
        for passage in passages
        for question in passage.questions
        if no_answer or question.answers
    ]
    references = {question.id: [answer.text for answer in question.answers] for _, question in rows}
    has_answer = np.array([bool(question.answers) for _, question in rows])
    odds = None if null_odds is None else np.array([null_odds[key] for key in references], np.float64)
    score = squad_v2_question_scores if no_answer else squad_question_scores
    scores = answered = score(predictions, references, language)
    metrics = _metrics(answered, references, null_odds, no_answer=no_answer, threshold=threshold)
    silent = np.zeros(len(rows), bool)
    if no_answer and odds is not None and threshold is not None:
        silent = odds > threshold
        scores = QuestionScores(*(at_threshold(column, has_answer, odds, threshold) for column in answered))
    texts = ["" if none else predictions[key] for key, none in zip(references, silent.tolist(), strict=True)]
    spans = [_spans(context, question, text) for (context, question), text in zip(rows, texts, strict=True)]
    reference_span, predicted_span = np.array(spans, np.int64).reshape(-1, 2, 2).swapaxes(0, 1)
    table = QuestionTable(
        ids=list(references),
        texts=[question.text for _, question in rows],
        contexts=[context for context, _ in rows],
        references=list(references.values()),
        predictions=texts,
        scores=scores,
        probability=None,
        has_answer=has_answer,
        threshold=threshold if no_answer else None,
        best_threshold=metrics.get("best_f1_thresh"),
        null_odds=odds,
        answered=answered,
        reference_span=reference_span,
        predicted_span=predicted_span,
        unit="characters",
        context_length=np.array([len(context) for context, _ in rows], np.int64),
        answer_first=reference_span[:, 0],
        num_windows=None,
        language=language,
    )
    return ScoredTexts(metrics, table)


def _metrics(
    answered: QuestionScores,
    references: Mapping[str, Sequence[str]],
    null_odds: Mapping[str, float] | None,
    *,
    no_answer: bool,
    threshold: float | None,
) -> dict[str, float]:
    if not no_answer:
        return total_scores(answered)
    odds = dict.fromkeys(references, 0.0) if null_odds is None else null_odds
    found = total_v2_scores(answered, references, odds, math.inf if threshold is None else threshold)
    unknown = {"threshold"} if threshold is None else set()
    if null_odds is None:
        unknown |= {"best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh"}
    return {name: value for name, value in found.items() if name not in unknown}


def _spans(context: str, question: Question, text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the first reference answer and the predicted text stand; the text may be nowhere, or at several places."""
    first = question.answers[0] if question.answers else None
    start = first.answer_start if first else 0
    reference = (start, start + len(first.text)) if first else _NOWHERE
    if not text:
        return reference, _NOWHERE
    places = (context.rfind(text, 0, start + len(text)), context.find(text, start))
    begin = min((place for place in places if place >= 0), key=lambda place: abs(place - start), default=None)
    return reference, (_NOWHERE if begin is None else (begin, begin + len(text)))
