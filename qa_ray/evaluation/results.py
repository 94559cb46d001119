"""From n-best spans to answers, metrics and the files of the official SQuAD scripts."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from qa_ray.data.corpus import Corpus
from qa_ray.evaluation.decode import Candidates, probabilities
from qa_ray.evaluation.metrics import squad_scores, squad_v2_scores
from qa_ray.schema import Prediction

Floats = npt.NDArray[np.float32]


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
class Evaluation:
    """A model's answers to a split, and how good they are."""

    metrics: Mapping[str, float]
    """exact_match and f1 in percent and loss in nats; where no answer is allowed, the full SQuAD v2.0 set."""
    predictions: Mapping[str, str]
    """The answer to each question id; empty where there is none."""
    n_best: Mapping[str, list[Prediction]]
    """The best candidates of each question id, best first."""
    null_odds: Mapping[str, float]
    """Score of no answer minus score of the best answer, by question id."""

    def save(self, folder: Path) -> None:
        """Write predictions.json, nbest_predictions.json, null_odds.json and metrics.json into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        n_best = {key: [asdict(candidate) for candidate in candidates] for key, candidates in self.n_best.items()}
        _write(folder / "predictions.json", self.predictions)
        _write(folder / "nbest_predictions.json", n_best)
        _write(folder / "null_odds.json", self.null_odds)
        _write(folder / "metrics.json", self.metrics)


def assemble(corpus: Corpus, candidates: Candidates, null: NullSpans, loss: float, *, no_answer: bool) -> Evaluation:
    """Cut answers out of their contexts and score them.

    Args:
        corpus: the split; `candidates` and `null` count its questions.
        candidates: n-best spans in context tokens.
        null: the "no answer" of every question, in their order.
        loss: mean loss of the windows.
        no_answer: whether an answer may be that there is none; the threshold is then searched on this split.
    """
    order = np.argsort(null.example)
    null_start, null_end = null.start_logit[order], null.end_logit[order]
    null_score = null_start + null_end
    chances, null_chances = probabilities(candidates, null_score if no_answer else None)
    bounds = np.searchsorted(candidates.example, np.arange(len(corpus) + 1))
    answers, n_best, null_odds = {}, {}, {}
    for question in range(len(corpus)):
        key = corpus.id(question)
        spans = _spans(corpus, question, candidates, chances, slice(bounds[question], bounds[question + 1]))
        best = next((span for span in spans if span.text.strip()), None)
        answers[key] = best.text if best else ""
        null_odds[key] = float(null_score[question]) - (best.start_logit + best.end_logit if best else 0.0)
        if null_chances is not None:
            logits = (float(null_start[question]), float(null_end[question]))
            spans.append(Prediction("", float(null_chances[question]), *logits))
            spans.sort(key=lambda span: -span.probability)
        n_best[key] = spans
    references = {corpus.id(question): corpus.references(question) for question in range(len(corpus))}
    if not no_answer:
        answered = {key: texts for key, texts in references.items() if texts}
        return Evaluation({**squad_scores(answers, answered), "loss": loss}, answers, n_best, null_odds)
    metrics = squad_v2_scores(answers, references, null_odds)
    final = {key: "" if null_odds[key] > metrics["threshold"] else text for key, text in answers.items()}
    return Evaluation({**metrics, "loss": loss}, final, n_best, null_odds)


def _spans(corpus: Corpus, question: int, candidates: Candidates, chances: Floats, rows: slice) -> list[Prediction]:
    context = corpus.context(question)
    starts, ends = corpus.offsets(question)
    begin, end = starts[candidates.first_token[rows]], ends[candidates.last_token[rows]]
    columns = (begin, end, chances[rows], candidates.start_logit[rows], candidates.end_logit[rows])
    return [
        Prediction(context[first:last], chance, start_logit, end_logit)
        for first, last, chance, start_logit, end_logit in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
