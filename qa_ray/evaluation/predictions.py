"""Answers that are there already, in the official scripts' layout: read, held to the questions, and scored."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qa_ray.config.data import DataConfig
from qa_ray.config.policies import BadRows, Language
from qa_ray.data.passages import read_split
from qa_ray.data.validation import check, describe, expect_text, first_uses, is_fatal, shown
from qa_ray.errors import DataError
from qa_ray.schema import Bools, Passage, Problem
from qa_ray.scores.predicted_texts import ScoredTexts, score_texts
from qa_ray.scores.question_table import QuestionTable
from qa_ray.scores.results import save_scores

logger = logging.getLogger(__name__)

_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """The questions of a data set that can be used, without any tokenizer."""

    passages: Sequence[Passage]
    problems: Sequence[Problem]
    """Rows that were left out, and why."""
    whole: bool
    """Whether they are all questions of the data set."""

    def ids(self) -> list[str]:
        """In the order of the data set."""
        return [question.id for passage in self.passages for question in passage.questions]

    @property
    def answered(self) -> Bools:
        """Whether each of them has an answer."""
        return np.array([bool(question.answers) for passage in self.passages for question in passage.questions])

    @property
    def has_unanswerable(self) -> bool:
        """Whether some question has no answer."""
        return not self.answered.all()


def read_questions(data: DataConfig, location: str, max_examples: int | None) -> Questions:
    """Read and validate questions as a model's evaluation does.

    Raises:
        DataError: nothing can be read, a row is bad and `on_bad_row` is error, or no question with an answer is left.
    """
    read, problems = read_split(data, location, max_examples)
    sound = []
    for passage in read:
        checked, found = check(passage)
        problems.extend(found)
        sound.append(checked)
    asked = [(passage, question) for passage in sound for question in passage.questions]
    first, repeated = first_uses([question.id for _, question in asked], [question.record for _, question in asked])
    problems += repeated
    fatal = [problem for problem in problems if is_fatal(problem)]
    if fatal or (problems and data.on_bad_row is BadRows.ERROR):
        raise DataError(describe(fatal or problems))
    passages = [replace(asked[place][0], questions=(asked[place][1],)) for place in first]
    if not any(passage.questions[0].answers for passage in passages):
        raise DataError(f"{location} has no question with an answer: there is nothing to measure predictions by")
    return Questions(passages=passages, problems=problems, whole=not problems and max_examples is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionFile:
    """What a file predicts for some questions."""

    name: str
    questions: Questions
    texts: Mapping[str, str]
    null_odds: Mapping[str, float] | None
    threshold: float | None
    language: Language

    def ids(self) -> list[str]:
        """Of the questions, in the order of the data set."""
        return self.questions.ids()

    @property
    def may_abstain(self) -> bool:
        """Whether it speaks for SQuAD v2.0 that questions without an answer count."""
        return self.questions.has_unanswerable or self.null_odds is not None

    def score(self, *, no_answer: bool) -> "ScoredPredictions":
        """Compare the texts with the reference answers."""
        found = score_texts(
            self.questions.passages,
            self.texts,
            self.null_odds,
            no_answer=no_answer,
            threshold=self.threshold,
            language=self.language,
        )
        return ScoredPredictions(file=self, scored=found)


@dataclass(frozen=True, kw_only=True)
class ScoredPredictions:
    """How good the predictions of a file are."""

    file: PredictionFile
    scored: ScoredTexts

    @property
    def name(self) -> str:
        """The file's."""
        return self.file.name

    @property
    def metrics(self) -> Mapping[str, float]:
        """exact_match and f1 in percent and, where no answer is allowed, what SQuAD v2.0 has besides."""
        return self.scored.metrics

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """No model was trained here."""
        return ()

    @property
    def facts(self) -> dict[str, str]:
        """What the report tells besides the scores."""
        return {"Predictions": self.name, "Questions": f"{len(self.table):,}"}

    @property
    def table(self) -> QuestionTable:
        """Its questions in columns."""
        return self.scored.table

    def save(self, folder: Path) -> None:
        """Write predictions.json, metrics.json and, where they are known, null_odds.json."""
        predictions = dict(zip(self.table.ids, self.table.predictions, strict=True))
        save_scores(folder, predictions, self.file.null_odds, self.metrics, self.table.language)


def read_predictions(
    path: Path, questions: Questions, *, null_odds: Path | None, threshold: float | None, language: Language
) -> PredictionFile:
    """Read a file of predicted texts and, with it, one of no-answer scores.

    Raises:
        DataError: a file cannot be read, does not hold what it should, or is about other questions.
    """
    texts = {key: expect_text(str(path), f"prediction of {key!r}", value) for key, value in _read(path).items()}
    _require_ids(path, texts, questions, "prediction")
    odds = None
    if null_odds is not None:
        odds = {key: _number(null_odds, key, value) for key, value in _read(null_odds).items()}
        _require_ids(null_odds, odds, questions, "no-answer score")
    return PredictionFile(
        name=str(path), questions=questions, texts=texts, null_odds=odds, threshold=threshold, language=language
    )


def _read(path: Path) -> dict[str, Any]:
    layout = "expected one JSON object with a value for each question id, as the official SQuAD scripts take it"
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}: name a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; {layout}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {shown(content)}: {layout}")
    return content


def _number(path: Path, key: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise DataError(f"{path}: no-answer score of {key!r}={shown(value)}: expected a number")
    return float(value)


def _require_ids(path: Path, given: Mapping[str, object], questions: Questions, noun: str) -> None:
    ids = questions.ids()
    if missing := [key for key in ids if key not in given]:
        raise DataError(f"{path} has no {noun} for {_named(missing)}: predict every question of --data")
    known = set(ids)
    if unknown := [key for key in given if key not in known]:
        told = f"{path} has a {noun} for {_named(unknown)} that cannot be found in --data"
        if questions.whole:
            raise DataError(f"{told}: is it of another data set?")
        logger.warning("%s: left out with the other questions", told)


def _named(ids: Sequence[str]) -> str:
    listed = ", ".join(map(repr, ids[:_SHOWN]))
    return f"{len(ids)} {'id' if len(ids) == 1 else 'ids'} ({listed}{', ...' if len(ids) > _SHOWN else ''})"
