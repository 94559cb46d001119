"""From n-best spans to answers, metrics and the files of the official SQuAD scripts."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from qa_ray.answers.decode import Candidates
from qa_ray.answers.n_best import Columns, NullSpans, Spans, find_spans
from qa_ray.config.policies import Language
from qa_ray.data.corpus import Corpus
from qa_ray.schema import Prediction
from qa_ray.scores.metrics import (
    QuestionScores,
    squad_question_scores,
    squad_v2_question_scores,
    total_scores,
    total_v2_scores,
)
from qa_ray.storage.strict_json import each_to_json, to_json

_METRICS = "metrics.json"
_SPANS = "spans.safetensors"
FILES = ("predictions.json", "nbest_predictions.json", "null_odds.json", _METRICS, _SPANS)
"""What an evaluation is saved in."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's answers to a split, and how good they are."""

    metrics: Mapping[str, float]
    """exact_match and f1 in percent and loss in nats; where no answer is allowed, the full SQuAD v2.0 set."""
    predictions: Mapping[str, str]
    """The answer to each question id; empty where there is none."""
    null_odds: Mapping[str, float]
    """Score of no answer minus score of the best answer, by question id."""
    answered: QuestionScores
    """Of the best non-empty answer of each question that is scored, before any threshold."""
    spans: Spans
    """The n-best candidates of all questions."""
    language: Language
    """The rule by which the metrics compare texts."""

    @property
    def n_best(self) -> dict[str, list[Prediction]]:
        """The best candidates of each question id, best first; their texts are made at each call."""
        return self.spans.n_best()

    def save(self, folder: Path) -> None:
        """Write predictions.json, nbest_predictions.json, null_odds.json, metrics.json and what `load` needs."""
        save_scores(folder, self.predictions, self.null_odds, self.metrics, self.language)
        _write_n_best(folder / "nbest_predictions.json", self.spans)
        save_file(self.spans.arrays(), folder / _SPANS)

    @staticmethod
    def load(folder: Path, corpus: Corpus) -> "Evaluation":
        """The evaluation of `corpus` that `save` wrote into `folder`."""
        metrics = json.loads((folder / _METRICS).read_text(encoding="utf-8"))
        arrays = load_file(folder / _SPANS)
        candidates = Candidates(*(arrays[f"candidates.{name}"] for name in Candidates.__slots__))
        null = NullSpans(*(arrays[f"null.{name}"] for name in NullSpans.__slots__))
        threshold, loss = metrics.get("threshold"), metrics["loss"]
        loss = math.nan if loss is None else loss
        return assemble(
            corpus,
            candidates,
            null,
            loss,
            no_answer=threshold is not None,
            threshold=threshold,
            language=Language(metrics.get("language", Language.SQUAD)),
        )


def save_scores(
    folder: Path,
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None,
    metrics: Mapping[str, float],
    language: Language,
) -> None:
    """Write predictions.json, null_odds.json if they are known, and metrics.json; files of an earlier one go."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    write_json(folder / "predictions.json", predictions)
    if null_odds is not None:
        write_json(folder / "null_odds.json", null_odds)
    write_json(folder / _METRICS, {**metrics, "language": language})


def assemble(
    corpus: Corpus,
    candidates: Candidates,
    null: NullSpans,
    loss: float,
    *,
    no_answer: bool,
    threshold: float | None = None,
    language: Language = Language.SQUAD,
) -> Evaluation:
    """Cut answers out of their contexts and score them.

    Args:
        corpus: the split; `candidates` and `null` count its questions.
        candidates: n-best spans in context tokens.
        null: the "no answer" of every question.
        loss: mean loss of the windows.
        no_answer: whether an answer may be that there is none.
        threshold: no answer is predicted where its odds are above it; without one it is searched on this split.
        language: the rule by which texts are compared.
    """
    spans = find_spans(corpus, candidates, null, no_answer=no_answer)
    ids = corpus.ids()
    answers = dict(zip(ids, spans.best_texts, strict=True))
    # What has no span is held against a score of 0, as Transformers' utils_qa.py does with logits of 0.
    best_scores = np.append(candidates.score, np.float32(0))[spans.best_rows]
    null_odds = dict(zip(ids, (spans.null.score.astype(np.float64) - best_scores).tolist(), strict=True))
    references = {key: corpus.references(question) for question, key in enumerate(ids)}
    if not no_answer:
        answered = {key: texts for key, texts in references.items() if texts}
        scores = squad_question_scores(answers, answered, language)
        return Evaluation({**total_scores(scores), "loss": loss}, answers, null_odds, scores, spans, language)
    scores = squad_v2_question_scores(answers, references, language)
    metrics = total_v2_scores(scores, references, null_odds, threshold)
    final = {key: "" if null_odds[key] > metrics["threshold"] else text for key, text in answers.items()}
    return Evaluation({**metrics, "loss": loss}, final, null_odds, scores, spans, language)


def write_json(path: Path, content: Any) -> None:
    """Write a file that people may read, too; a number that is not finite is null there."""
    path.write_text(to_json(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_n_best(path: Path, spans: Spans) -> None:
    """Write what `write_json` would of all n-best lists, some questions at a time."""
    keys = iter(each_to_json(spans.corpus.ids()))
    with path.open("w", encoding="utf-8") as file:
        file.write("{")
        between = "\n "
        for counts, columns in spans.parts():
            entries = _entries(columns)
            for count, key in zip(counts, keys, strict=False):
                listed = ",".join(islice(entries, count))
                file.write(f"{between}{key}: [{listed}\n ]" if count else f"{between}{key}: []")
                between = ",\n "
        file.write("\n}\n")


def _entries(columns: Columns) -> Iterator[str]:
    """The JSON of each candidate in its list, with the line break before it."""
    pieces: list[Iterable[str]] = []
    written = [each_to_json(columns.text), *map(each_to_json, columns[1:])]
    for before, name, column in zip("{,,,", columns._fields, written, strict=True):
        pieces += [repeat(f'{before}\n   "{name}": '), column]
    return map("".join, zip(repeat("\n  "), *pieces, repeat("\n  }"), strict=False))
