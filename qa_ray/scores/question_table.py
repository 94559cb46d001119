"""What is known of each question of an evaluation, in columns: its scores, where its answers stand, how long it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from qa_ray.answers.n_best import Spans
from qa_ray.config.policies import Language
from qa_ray.data.corpus import Corpus
from qa_ray.data.windows import Windows
from qa_ray.schema import Bools, Float64s, Int64s
from qa_ray.scores.metrics import QuestionScores, at_threshold
from qa_ray.scores.results import Evaluation

Unit = Literal["tokens", "characters"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionTable:
    """The scored questions: all of a split or, where no answer is never predicted, those that have an answer.

    Every array is [num_questions]; character spans are [num_questions, 2], begin and end, -1 where there is none.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    contexts: Sequence[str]
    references: Sequence[Sequence[str]]
    predictions: Sequence[str]
    """Empty where no answer is predicted."""
    scores: QuestionScores
    """Of the predictions."""
    probability: Float64s | None
    """That the model gives its prediction; None where only its texts are known."""
    has_answer: Bools
    threshold: float | None
    """No answer is predicted where its odds are above it; None where it never is, or where the texts decide."""
    best_threshold: float | None
    """The one with the best F1 on these very questions; None without odds."""
    null_odds: Float64s | None
    """Score of no answer minus score of the best answer."""
    answered: QuestionScores
    """Of the best non-empty answers, before any threshold."""
    reference_span: Int64s
    """Characters of the first reference answer, widened to whole tokens."""
    predicted_span: Int64s
    unit: Unit
    """What the next two count: a model's tokens or, where only texts are known, characters."""
    context_length: Int64s
    answer_first: Int64s
    """Where in the context the first reference answer begins; -1 where there is none."""
    num_windows: Int64s | None
    """None where only texts are known."""
    language: Language
    """The rule by which the scores compare texts."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def no_answer(self) -> bool:
        """Whether it may be right, or predicted, that a context holds no answer."""
        return self.threshold is not None or not self.has_answer.all()

    @property
    def is_flattered(self) -> bool:
        """Whether the threshold is the best one for the questions that it is scored on."""
        return self.threshold is not None and self.threshold == self.best_threshold


def tabulate(evaluation: Evaluation, corpus: Corpus, windows: Windows) -> QuestionTable:
    """Put an evaluation of `corpus`, cut into `windows`, into columns."""
    threshold = evaluation.metrics.get("threshold")
    has_answer = corpus.answer_first >= 0
    # Without a threshold the metrics leave unanswerable questions out.
    rows = np.arange(len(corpus)) if threshold is not None else np.flatnonzero(has_answer)
    numbers = rows.tolist()
    ids, contexts = corpus.ids(), corpus.contexts()
    keys = [ids[number] for number in numbers]
    best, begins, ends = _best_candidates(evaluation.spans)
    null_odds = np.array([evaluation.null_odds[key] for key in keys], np.float64)
    answered = scores = evaluation.answered
    silent = np.zeros(len(rows), bool)
    if threshold is not None:
        silent = null_odds > threshold
        scores = QuestionScores(*(at_threshold(column, has_answer, null_odds, threshold) for column in answered))
    predicted = np.where(((best[rows] < 0) | silent)[:, None], -1, np.stack([begins, ends], axis=1)[rows])
    return QuestionTable(
        ids=keys,
        texts=[corpus.text(number) for number in numbers],
        contexts=[contexts[number] for number in numbers],
        references=[corpus.references(number) for number in numbers],
        predictions=[evaluation.predictions[key] for key in keys],
        scores=scores,
        probability=_probability(evaluation.spans, best[rows], rows, silent),
        has_answer=has_answer[rows],
        threshold=threshold,
        best_threshold=evaluation.metrics.get("best_f1_thresh"),
        null_odds=null_odds,
        answered=answered,
        reference_span=_reference_spans(corpus)[rows],
        predicted_span=predicted.astype(np.int64),
        unit="tokens",
        context_length=corpus.context_lengths[rows],
        answer_first=corpus.answer_first[rows],
        num_windows=np.bincount(windows.question, minlength=len(corpus))[rows],
        language=evaluation.language,
    )


def _best_candidates(spans: Spans) -> tuple[Int64s, Int64s, Int64s]:
    """Row of each question's best candidate, -1 without one, and its begin and end."""
    candidates, rows = spans.candidates, spans.best_rows
    known = np.flatnonzero(rows >= 0)
    chosen = rows[known]
    begins, ends = np.zeros((2, len(rows)), np.int64)
    begins[known], ends[known] = spans.corpus.characters(
        candidates.example[chosen], candidates.first_token[chosen], candidates.last_token[chosen]
    )
    return rows, begins, ends


def _reference_spans(corpus: Corpus) -> Int64s:
    found = np.full((len(corpus), 2), -1, np.int64)
    answered = np.flatnonzero(corpus.answer_first >= 0)
    first, last = (column[answered].astype(np.int32) for column in (corpus.answer_first, corpus.answer_last))
    found[answered] = np.stack(corpus.characters(answered, first, last), axis=1)
    return found


def _probability(spans: Spans, best: Int64s, rows: Int64s, silent: Bools) -> Float64s:
    answer = np.where(best < 0, 0.0, _take(spans.chances, best))
    found = answer if spans.null_chances is None else np.where(silent, spans.null_chances[rows], answer)
    # Infinite logits, as of an overflow in fp16, have no probability.
    return np.nan_to_num(found.astype(np.float64), nan=0.0)


def _take(values: npt.NDArray[Any], rows: Int64s) -> npt.NDArray[Any]:
    """values[rows], and 0 for row -1."""
    return np.append(values, values.dtype.type(0))[rows]
