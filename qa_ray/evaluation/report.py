"""What an evaluation leaves: files in a folder, and a table on the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from qa_ray.config.fine_tuning import Config
from qa_ray.data.corpus import Corpus
from qa_ray.data.windows import Windows
from qa_ray.pages.report import render
from qa_ray.pages.view import Report
from qa_ray.scores.intervals import Comparison, Interval, bracketed, headline_scores, verdict
from qa_ray.scores.question_table import QuestionTable, tabulate
from qa_ray.scores.results import FILES, Evaluation, write_json

REPORT = "report.html"
BAD_ROWS = "bad_rows.jsonl"
"""The rows that were left out, if there were any, with the reason."""
AGAINST = "against"
"""Folder of the other model's files."""
_COMPARISON = "comparison.json"
_NO_ANSWER = "(no answer)"
_SHOWN_FLIPS = 3


class Outcome(Protocol):
    """How a model, or a file of predictions, did."""

    @property
    def name(self) -> str:
        """The model's or the file's."""

    @property
    def table(self) -> QuestionTable:
        """Its questions in columns."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Its scores in percent, and what else was measured."""

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """Lines of its run's metrics.jsonl, if there are any."""

    @property
    def facts(self) -> dict[str, str]:
        """What the report tells besides the scores, by name."""

    def save(self, folder: Path) -> None:
        """Write its files, and nothing of an earlier evaluation."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """How one model did."""

    name: str
    config: Config
    evaluation: Evaluation
    corpus: Corpus
    windows: Windows
    history: Sequence[Mapping[str, Any]]
    """Lines of its run's metrics.jsonl, if there are any."""

    @cached_property
    def table(self) -> QuestionTable:
        """Its questions in columns."""
        return tabulate(self.evaluation, self.corpus, self.windows)

    @property
    def metrics(self) -> Mapping[str, float]:
        """exact_match and f1 in percent, loss in nats and, where no answer is allowed, what SQuAD v2.0 has besides."""
        return self.evaluation.metrics

    @property
    def facts(self) -> dict[str, str]:
        """What the report tells besides the scores."""
        window, evaluate = self.config.window, self.config.evaluate
        return {
            "Model": self.name,
            "Questions": f"{len(self.corpus):,} in {len(self.windows):,} windows",
            "Window": f"{window.max_length} tokens, {window.stride} of them shared",
            "Answers": f"at most {evaluate.max_answer_length} tokens, {evaluate.n_best} candidates",
        }

    def save(self, folder: Path) -> None:
        """Write the files of the evaluation."""
        self.evaluation.save(folder)


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What an evaluation has to show."""

    models: Sequence[Outcome]
    """The model or the predictions, and what they were compared with, if anything."""
    comparison: Comparison | None
    folder: Path
    """Holds predictions, scores and the report."""
    num_resamples: int
    seed: int

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The model's scores in percent, with their 95% intervals."""
        return headline_scores(self.models[0].table, num_resamples=self.num_resamples, seed=self.seed)

    @property
    def scores(self) -> dict[str, float]:
        """The model's scores in percent."""
        return {name: interval.mean for name, interval in self.intervals.items()}

    @property
    def report(self) -> Report:
        """The page that shows how good the model is."""
        return Report(str(self.folder / REPORT))


def save_outcome(
    outcome: Outcome, folder: Path, *, data: str, comparison: Comparison | None, num_resamples: int, seed: int
) -> None:
    """Write the files of the official SQuAD scripts, intervals.json, comparison.json and the report into `folder`."""
    outcome.save(folder)
    scores = headline_scores(outcome.table, num_resamples=num_resamples, seed=seed)
    write_json(folder / "intervals.json", {name: score._asdict() for name, score in scores.items()})
    if comparison is None:
        _remove_comparison(folder)
    else:
        write_json(folder / _COMPARISON, _comparison_json(outcome.table, comparison))
    page = render(
        outcome.table,
        outcome.metrics,
        title=f"{outcome.name} on {data}",
        history=outcome.history,
        facts={**outcome.facts, "Data": data},
        comparison=comparison,
        scores=scores,
        num_resamples=num_resamples,
        seed=seed,
    )
    (folder / REPORT).write_text(page, encoding="utf-8")


def _remove_comparison(folder: Path) -> None:
    """Remove that of an earlier evaluation, which would be taken for this one's; what else is there is not ours."""
    (folder / _COMPARISON).unlink(missing_ok=True)
    for name in (*FILES, BAD_ROWS):
        (folder / AGAINST / name).unlink(missing_ok=True)
    if (folder / AGAINST).is_dir() and not any((folder / AGAINST).iterdir()):
        (folder / AGAINST).rmdir()


def summary(result: EvaluationResult) -> str:
    """Scores with their 95% intervals, thresholds, the comparison, and where everything lies."""
    first, comparison, folder = result.models[0], result.comparison, result.folder
    lines = ["", *_score_lines(result.intervals, comparison)]
    for label, outcome in zip("AB", result.models, strict=False):
        lines += ["", f"{label}  {outcome.name}" if comparison else outcome.name, *_notes(outcome)]
    if comparison is not None:
        lines += ["", *_flip_lines(first.table, comparison)]
    return "\n".join([*lines, "", f"report  {folder / REPORT}", f"answers {folder / 'predictions.json'}"])


def _score_lines(scores: Mapping[str, Interval], comparison: Comparison | None) -> list[str]:
    if comparison is None:
        rows = [f"{name:<13}{score.mean:7.2f}  {bracketed(score)}" for name, score in scores.items()]
        return [f"{'':<13}percent  95% interval", *rows]
    lines = [f"{'':<13}{'A':>7}{'':18}{'B':>7}{'':18}{'A - B':>7}{'':18}{'A better':>9}"]
    for name, difference in comparison.differences.items():
        columns = (scores[name], comparison.scores[name])
        cells = "".join(f"{score.mean:7.2f}  {bracketed(score):<16}" for score in columns)
        cells += f"{difference.mean:+7.2f}  {bracketed(difference, '+.1f'):<16}"
        lines.append(f"{name:<13}{cells}{difference.share_better:9.1%}")
    return [*lines, "", f"By F1, {verdict(comparison.differences['f1'], 'A', 'B')}."]


def _notes(outcome: Outcome) -> list[str]:
    metrics = outcome.metrics
    loss = f", loss {metrics['loss']:.3f}" if "loss" in metrics else ""
    lines = [f"   {len(outcome.table):,} questions{loss}, scored by {outcome.table.language.rule}"]
    if outcome.table.threshold is None:
        if outcome.table.best_threshold is None:
            return lines
        best = f"{outcome.table.best_threshold:.3f}, with F1 {metrics['best_f1']:.2f}"
        return [*lines, f"   the best no-answer threshold for these questions is {best}"]
    threshold = f"   no-answer threshold {outcome.table.threshold:.3f}"
    if outcome.table.is_flattered:
        return [*lines, f"{threshold}: the best one for these very questions, which flatters"]
    best = f"{outcome.table.best_threshold:.3f}, with F1 {metrics['best_f1']:.2f}"
    return [*lines, f"{threshold}; the best one for these questions is {best}"]


def _flip_lines(table: QuestionTable, comparison: Comparison) -> list[str]:
    won = [flip for flip in comparison.flips if flip.won]
    lost = [flip for flip in comparison.flips if not flip.won]
    lines = []
    for flips, right, wrong in ((won, "A", "B"), (lost, "B", "A")):
        lines.append(f"{len(flips)} questions that {right} answers exactly and {wrong} does not")
        for flip in flips[:_SHOWN_FLIPS]:
            answers = {"A": table.predictions[flip.row], "B": comparison.other.predictions[flip.row]}
            lines.append(f"   {table.texts[flip.row]}")
            lines.append(f"      {right}: {answers[right] or _NO_ANSWER}   {wrong}: {answers[wrong] or _NO_ANSWER}")
    return lines


def _comparison_json(table: QuestionTable, comparison: Comparison) -> dict[str, Any]:
    flips = [
        {
            "id": table.ids[flip.row],
            "won": flip.won,
            "question": table.texts[flip.row],
            "references": list(table.references[flip.row]),
            "prediction": table.predictions[flip.row],
            "prediction_against": comparison.other.predictions[flip.row],
        }
        for flip in comparison.flips
    ]
    return {
        "against": comparison.name,
        "scores": {name: score._asdict() for name, score in comparison.scores.items()},
        "differences": {name: difference._asdict() for name, difference in comparison.differences.items()},
        "flips": flips,
    }
