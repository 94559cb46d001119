"""A small evaluation made by hand: what was asked, what was predicted, and a table of it, without any model."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from families import FAMILIES
from passages import corpus_of

from qa_ray.answers.decode import Candidates
from qa_ray.answers.n_best import NullSpans
from qa_ray.config.fine_tuning import WindowConfig
from qa_ray.config.policies import Language
from qa_ray.data.corpus import Corpus
from qa_ray.data.windows import Windows, make_windows
from qa_ray.schema import Answer, Passage, Question
from qa_ray.scores.metrics import QuestionScores
from qa_ray.scores.question_table import QuestionTable
from qa_ray.scores.results import Evaluation, assemble

THRESHOLD = 1.0


@dataclass(frozen=True)
class Asked:
    """A question with its reference answer, None where the context holds none, and the answer that scores best."""

    question: str
    context: str
    reference: str | None
    best: str
    null_odds: float = -5.0
    """No answer is predicted if it is above THRESHOLD."""


def evaluation_of(
    asked: Sequence[Asked], *, no_answer: bool = True, language: Language = Language.SQUAD
) -> tuple[Evaluation, Corpus, Windows]:
    """The evaluation of a model that gives these answers; windows hold few tokens, so that contexts have several."""
    family = FAMILIES["bert"]
    corpus = corpus_of([_passage(number, item) for number, item in enumerate(asked)], family.tokenizer())
    spans = [_tokens(corpus, number, item.best) for number, item in enumerate(asked)]
    first, last = (np.array(column, np.int32) for column in zip(*spans, strict=True))
    zeros = np.zeros(len(asked), np.float32)
    null = np.array([item.null_odds for item in asked], np.float32)
    everyone = np.arange(len(asked))
    evaluation = assemble(
        corpus,
        Candidates(everyone, first, last, zeros, zeros),
        NullSpans(everyone, null, zeros),
        0.5,
        no_answer=no_answer,
        threshold=THRESHOLD if no_answer else None,
        language=language,
    )
    room = int(corpus.question_lengths.max()) + 20
    return evaluation, corpus, make_windows(corpus, WindowConfig(max_length=room, stride=4), family.template())


def assert_same_metrics(one: Path, other: Path) -> None:
    """The metrics.json of two folders are the same but for rounding."""
    found, expected = (json.loads((folder / "metrics.json").read_text("utf-8")) for folder in (one, other))
    assert found.pop("language") == expected.pop("language")
    assert found == pytest.approx(expected, rel=1e-4)


def _passage(number: int, item: Asked) -> Passage:
    answers = () if item.reference is None else (Answer(item.reference, item.context.index(item.reference)),)
    return Passage(item.context, (Question(f"q{number}", item.question, answers, f"row {number}"),))


def _tokens(corpus: Corpus, question: int, text: str) -> tuple[int, int]:
    """First and last token of a text in the question's context."""
    starts, ends = corpus.offsets(question)
    begin = corpus.context(question).index(text)
    return int(np.searchsorted(ends, begin, side="right")), int(np.searchsorted(starts, begin + len(text))) - 1


def table_of(exact: Sequence[float], f1: Sequence[float] | None = None, **columns: object) -> QuestionTable:
    """A table of these scores; `columns` replace what is otherwise the same for all questions."""
    number = len(exact)
    scores = QuestionScores(np.array(exact, float), np.array(exact if f1 is None else f1, float))
    table = QuestionTable(
        ids=[f"q{row}" for row in range(number)],
        texts=["What?"] * number,
        contexts=["a context"] * number,
        references=[["a context"]] * number,
        predictions=["context"] * number,
        scores=scores,
        probability=np.full(number, 0.5),
        has_answer=np.ones(number, bool),
        threshold=None,
        best_threshold=None,
        null_odds=np.zeros(number),
        answered=scores,
        reference_span=np.tile([0, 9], (number, 1)),
        predicted_span=np.tile([2, 9], (number, 1)),
        unit="tokens",
        context_length=np.full(number, 10),
        answer_first=np.zeros(number, np.int64),
        num_windows=np.ones(number, np.int64),
        language=Language.SQUAD,
    )
    return dataclasses.replace(table, **columns)
