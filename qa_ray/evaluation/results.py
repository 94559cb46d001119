"""From n-best spans to answers, metrics and the files of the official SQuAD scripts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from qa_ray.data.corpus import Corpus
from qa_ray.evaluation.decode import Candidates, probabilities
from qa_ray.evaluation.metrics import squad_scores, squad_v2_scores
from qa_ray.schema import Prediction

Floats = npt.NDArray[np.float32]

_METRICS = "metrics.json"
_SPANS = "spans.safetensors"


@dataclass(frozen=True, slots=True)
class NullSpans:
    """Each example's "no answer": the lowest-scored CLS span over its windows; arrays [num_examples]."""

    example: npt.NDArray[np.int64]
    start_logit: Floats
    end_logit: Floats

    @classmethod
    def of(cls, example: npt.NDArray[np.int64], start_logit: Floats, end_logit: Floats) -> Self:
        """Choose among windows, [num_windows]: an answer may stand in any, so the least sure of "no answer" counts."""
        order = np.lexsort((start_logit + end_logit, example))
        chosen = order[np.unique(example[order], return_index=True)[1]]
        return cls(example[chosen], start_logit[chosen], end_logit[chosen])


@dataclass(frozen=True, slots=True)
class Spans:
    """The n-best spans of a split, as arrays; texts are cut out of their contexts when they are asked for."""

    corpus: Corpus
    candidates: Candidates
    chances: Floats
    """Probability of each candidate."""
    null: NullSpans
    """In the order of the questions."""
    null_chances: Floats | None
    """Probability of "no answer" of each question, where it is allowed."""

    def best(self) -> list[Prediction | None]:
        """The best candidate of each question whose text is not blank."""
        return [span for _, span in self._best()]

    def best_rows(self) -> npt.NDArray[np.int64]:
        """The row of each question's best candidate whose text is not blank, -1 without one."""
        return np.array([row for row, _ in self._best()], np.int64)

    def n_best(self) -> dict[str, list[Prediction]]:
        """All candidates of each question id, best first, with "no answer" among them where it is allowed."""
        found = [[span for _, span in spans] for spans in self._questions()]
        if self.null_chances is not None:
            columns = (self.null_chances, self.null.start_logit, self.null.end_logit)
            for spans, *null in zip(found, *(column.tolist() for column in columns), strict=True):
                spans.append(Prediction("", *null))
                spans.sort(key=lambda span: -span.probability)
        return dict(zip(self.corpus.ids(), found, strict=True))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The candidates and null spans, by name: what they can be made from again."""
        candidates = {f"candidates.{name}": getattr(self.candidates, name) for name in Candidates.__slots__}
        return candidates | {f"null.{name}": getattr(self.null, name) for name in NullSpans.__slots__}

    def _best(self) -> list[tuple[int, Prediction | None]]:
        return [next((found for found in spans if found[1].text.strip()), (-1, None)) for spans in self._questions()]

    def _questions(self) -> Iterator[Iterator[tuple[int, Prediction]]]:
        """Row and text of each question's candidates, best first; only those that are taken are made."""
        candidates = self.candidates
        begins, ends = self.corpus.characters(candidates.example, candidates.first_token, candidates.last_token)
        columns = (self.chances, candidates.start_logit, candidates.end_logit)
        bounds = np.searchsorted(candidates.example, np.arange(len(self.corpus) + 1)).tolist()
        for context, (first, last) in zip(self.corpus.contexts(), pairwise(bounds), strict=True):
            yield (
                (row, Prediction(context[begins[row] : ends[row]], *(column[row].item() for column in columns)))
                for row in range(first, last)
            )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's answers to a split, and how good they are."""

    metrics: Mapping[str, float]
    """exact_match and f1 in percent and loss in nats; where no answer is allowed, the full SQuAD v2.0 set."""
    predictions: Mapping[str, str]
    """The answer to each question id; empty where there is none."""
    null_odds: Mapping[str, float]
    """Score of no answer minus score of the best answer, by question id."""
    spans: Spans
    """The n-best candidates of all questions."""

    @property
    def n_best(self) -> dict[str, list[Prediction]]:
        """The best candidates of each question id, best first; their texts are made at each call."""
        return self.spans.n_best()

    def save(self, folder: Path) -> None:
        """Write predictions.json, nbest_predictions.json, null_odds.json, metrics.json and what `load` needs."""
        folder.mkdir(parents=True, exist_ok=True)
        n_best = {key: [span._asdict() for span in spans] for key, spans in self.n_best.items()}
        _write(folder / "predictions.json", self.predictions)
        _write(folder / "nbest_predictions.json", n_best)
        _write(folder / "null_odds.json", self.null_odds)
        _write(folder / _METRICS, self.metrics)
        save_file(self.spans.arrays(), folder / _SPANS)

    @staticmethod
    def load(folder: Path, corpus: Corpus) -> "Evaluation":
        """The evaluation of `corpus` that `save` wrote into `folder`."""
        metrics = json.loads((folder / _METRICS).read_text(encoding="utf-8"))
        arrays = load_file(folder / _SPANS)
        candidates = Candidates(*(arrays[f"candidates.{name}"] for name in Candidates.__slots__))
        null = NullSpans(*(arrays[f"null.{name}"] for name in NullSpans.__slots__))
        threshold = metrics.get("threshold")
        return assemble(corpus, candidates, null, metrics["loss"], no_answer=threshold is not None, threshold=threshold)


def find_spans(corpus: Corpus, candidates: Candidates, null: NullSpans, *, no_answer: bool) -> Spans:
    """Join candidates and null spans, given in any order of the questions, and compute their probabilities."""
    order = np.argsort(null.example)
    null = NullSpans(null.example[order], null.start_logit[order], null.end_logit[order])
    chances, null_chances = probabilities(candidates, null.start_logit + null.end_logit if no_answer else None)
    return Spans(corpus, candidates, chances, null, null_chances)


def assemble(
    corpus: Corpus,
    candidates: Candidates,
    null: NullSpans,
    loss: float,
    *,
    no_answer: bool,
    threshold: float | None = None,
) -> Evaluation:
    """Cut answers out of their contexts and score them.

    Args:
        corpus: the split; `candidates` and `null` count its questions.
        candidates: n-best spans in context tokens.
        null: the "no answer" of every question.
        loss: mean loss of the windows.
        no_answer: whether an answer may be that there is none.
        threshold: no answer is predicted where its odds are above it; without one it is searched on this split.
    """
    spans = find_spans(corpus, candidates, null, no_answer=no_answer)
    ids, best = corpus.ids(), spans.best()
    answers = {key: span.text if span else "" for key, span in zip(ids, best, strict=True)}
    null_scores = (spans.null.start_logit + spans.null.end_logit).tolist()
    null_odds = {
        key: score - (span.start_logit + span.end_logit if span else 0.0)
        for key, score, span in zip(ids, null_scores, best, strict=True)
    }
    references = {key: corpus.references(question) for question, key in enumerate(ids)}
    if not no_answer:
        answered = {key: texts for key, texts in references.items() if texts}
        return Evaluation({**squad_scores(answers, answered), "loss": loss}, answers, null_odds, spans)
    metrics = squad_v2_scores(answers, references, null_odds, threshold)
    final = {key: "" if null_odds[key] > metrics["threshold"] else text for key, text in answers.items()}
    return Evaluation({**metrics, "loss": loss}, final, null_odds, spans)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
