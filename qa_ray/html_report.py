"""One HTML page that shows how good a model is and where it errs; it needs no network, and no file beside it."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from qa_ray import html_figures as figures
from qa_ray.data.corpus import Corpus
from qa_ray.data.windows import Windows
from qa_ray.errors import StorageError
from qa_ray.evaluation import analysis
from qa_ray.evaluation.bootstrap import NUM_RESAMPLES, Difference, Interval
from qa_ray.evaluation.comparison import Comparison, headline_scores
from qa_ray.evaluation.questions import QuestionTable, tabulate
from qa_ray.evaluation.results import Evaluation
from qa_ray.html_figures import Line
from qa_ray.html_page import Page, grid
from qa_ray.html_page import table as table_of

MAX_ERRORS = 200
MAX_FLIPS = 200
_NO_ANSWER = "(no answer)"


def write_report(
    path: Path,
    evaluation: Evaluation,
    corpus: Corpus,
    windows: Windows,
    *,
    title: str,
    history: Sequence[Line] | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the page of a model's evaluation.

    Args:
        path: the HTML file.
        evaluation: the model's answers and scores.
        corpus: the split that was answered.
        windows: how its contexts were cut.
        title: what the page is called.
        history: lines of the run's metrics.jsonl, for the learning curves.
        facts: what else is to be told at the top, by name.

    Raises:
        StorageError: the file cannot be written.
    """
    table = tabulate(evaluation, corpus, windows)
    page = render(table, evaluation.metrics, title=title, history=history or (), facts=facts or {})
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the report {path} cannot be written: {error.strerror or error}") from error


def render(
    table: QuestionTable,
    metrics: Mapping[str, float],
    *,
    title: str,
    history: Sequence[Line] = (),
    facts: Mapping[str, str] | None = None,
    comparison: Comparison | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> str:
    """Return the page; `metrics` are those of the evaluation that `table` was made from."""
    page = Page()
    draws = {"num_resamples": num_resamples, "seed": seed}
    scores = headline_scores(table, **draws)
    _add_scores(page, table, metrics, scores, num_resamples)
    if comparison is not None:
        _add_comparison(page, table, scores, comparison)
    _add_learning(page, history)
    _add_slices(page, table, draws)
    _add_calibration(page, table)
    if table.threshold is not None:
        _add_no_answer(page, table, metrics)
    _add_errors(page, table)
    return page.render(title, facts or {})


def _add_scores(
    page: Page, table: QuestionTable, metrics: Mapping[str, float], scores: Mapping[str, Interval], num_resamples: int
) -> None:
    tiles = "".join(
        f'<div class="tile">{heading}<b>{score.mean:.1f}</b><span class="muted">{_range(score)}</span></div>'
        for heading, score in (("Exact match", scores["exact_match"]), ("F1", scores["f1"]))
    )
    rows = [[name, f"{score.mean:.2f}", _range(score)] for name, score in scores.items()]
    note = (
        f"{len(table):,} questions. Brackets hold 95% confidence intervals from {num_resamples:,} resamples of the "
        "questions: they tell how far the scores would move with other questions of the same kind, not with another "
        "training seed."
    )
    threshold = ""
    if table.threshold is not None:
        threshold = (
            "<p>No answer is predicted where its score exceeds that of the best answer by more than the threshold "
            f"{table.threshold:.3f}. The best threshold for these questions is {metrics['best_f1_thresh']:.3f}, "
            f"with F1 {metrics['best_f1']:.2f}.</p>"
        )
    page.add(
        "scores",
        "Scores",
        f'<div class="tiles">{tiles}</div><p class="muted">{note}</p>{threshold}',
        table_of("Scores in percent", ("score", "percent", "95% interval"), rows),
    )


def _add_comparison(page: Page, table: QuestionTable, scores: Mapping[str, Interval], comparison: Comparison) -> None:
    rows = [
        [
            name,
            *(f"{score.mean:.2f} {_range(score)}" for score in (scores[name], comparison.scores[name])),
            _signed(difference),
            f"{difference.share_better:.1%}",
        ]
        for name, difference in comparison.differences.items()
    ]
    won = sum(flip.won for flip in comparison.flips)
    flips = [
        [
            "won" if flip.won else "lost",
            table.texts[flip.row],
            _references(table, flip.row),
            table.predictions[flip.row] or _NO_ANSWER,
            comparison.other.predictions[flip.row] or _NO_ANSWER,
        ]
        for flip in comparison.flips[:MAX_FLIPS]
    ]
    more = f", of which the first {MAX_FLIPS} are here" if len(comparison.flips) > MAX_FLIPS else ""
    page.add(
        "comparison",
        "Comparison",
        f"<p>Against {escape(comparison.name)}, on the same questions and with the same resamples.</p>",
        table_of("Scores of both models", ("score", "this model", "other model", "difference", "resamples won"), rows),
        f"<p>{len(comparison.flips):,} questions are answered exactly by one model only: {won:,} won, "
        f"{len(comparison.flips) - won:,} lost{more}.</p><details><summary>Questions that flipped</summary>",
        table_of("Questions that flipped", ("", "question", "reference", "this model", "other model"), flips),
        "</details>",
    )


def _add_learning(page: Page, history: Sequence[Line]) -> None:
    found = (
        ("Loss", "Mean loss of the training windows since the record before, and of the validation windows.",
         figures.loss_curves(history)),
        ("Validation scores", "Exact match and F1 of the validation questions in percent.",
         figures.score_curves(history)),
    )  # fmt: skip
    drawn = [page.figure(heading, text, figure) for heading, text, figure in found if figure is not None]
    if drawn:
        page.add("learning", "Learning curves", grid(drawn))


def _add_slices(page: Page, table: QuestionTable, draws: Mapping[str, int]) -> None:
    texts = {
        "Question word": "The first question word in the question.",
        "Answer length": "Words of the first reference answer.",
        "Context length": "Tokens of the context.",
        "Answer position": "Where in the context the first reference answer begins.",
        "Windows": "Windows that the context was cut into.",
    }
    drawn = []
    for grouping in analysis.groupings(table):
        found = analysis.slice_scores(table, grouping, **draws)
        rows = [
            [
                part.label,
                f"{part.number:,}",
                *(f"{score.mean:.1f} {_range(score)}" for score in (part.exact_match, part.f1)),
            ]
            for part in found
        ]
        numbers = table_of(grouping.name, ("slice", "questions", "exact match", "F1"), rows)
        drawn.append(page.figure(grouping.name, texts[grouping.name], figures.slice_bars(found), numbers))
    note = "<p>In brackets behind each name: its number of questions. Whiskers are 95% confidence intervals.</p>"
    page.add("slices", "Scores by kind of question", note, grid(drawn))


def _add_calibration(page: Page, table: QuestionTable) -> None:
    found = analysis.calibrate(table.probability, table.scores.exact_match)
    rows = [[f"{part.probability:.3f}", f"{part.share_right:.3f}", f"{part.number:,}"] for part in found.bins]
    numbers = table_of("Calibration", ("mean probability", "share right", "questions"), rows)
    drawn = page.figure("Reliability", "Share right by predicted probability.", figures.reliability(found), numbers)
    text = (
        f"<p>Expected calibration error: <strong>{found.expected_error:.3f}</strong>. It is the mean distance between "
        "the probability that the model gives its prediction and how often such predictions are right (exact match). "
        "Points below the dotted line are overconfident.</p>"
    )
    page.add("calibration", "Calibration", text, grid([drawn]))


def _add_no_answer(page: Page, table: QuestionTable, metrics: Mapping[str, float]) -> None:
    assert table.threshold is not None
    drawn = []
    curve = analysis.threshold_curve(table)
    if len(curve.threshold):
        figure = figures.threshold_scores(curve, table.threshold, metrics["best_f1_thresh"])
        drawn.append(page.figure("Threshold", "Scores of all questions by no-answer threshold.", figure))
    found = analysis.precision_recall(table)
    text = f"F1 counts as true positive; average precision {found.average_precision:.3f}."
    drawn.append(page.figure("Precision and recall", text, figures.precision_recall_curve(found)))
    page.add("no-answer", "No answer", grid(drawn))


def _add_errors(page: Page, table: QuestionTable) -> None:
    rows = analysis.worst_errors(table, MAX_ERRORS)
    if not rows:
        page.add("errors", "Worst errors", "<p>Every question is answered exactly.</p>")
        return
    contexts: dict[str, int] = {}
    groups, options = analysis.groupings(table), []
    for group in groups:
        numbers = {label: sum(group.labels[group.slice_of[row]] == label for row in rows) for label in group.labels}
        choices = "".join(
            f'<option value="{escape(f"{group.name}: {label}")}">{escape(label)} ({number})</option>'
            for label, number in numbers.items()
            if number
        )
        options.append(f'<optgroup label="{escape(group.name)}">{choices}</optgroup>')
    examples = [
        {
            "id": table.ids[row],
            "question": table.texts[row],
            "context": contexts.setdefault(table.contexts[row], len(contexts)),
            "references": list(table.references[row]),
            "prediction": table.predictions[row],
            "probability": round(float(table.probability[row]), 4),
            "f1": round(float(table.scores.f1[row]), 4),
            "reference_span": table.reference_span[row].tolist(),
            "predicted_span": table.predicted_span[row].tolist(),
            "slices": [f"{group.name}: {group.labels[group.slice_of[row]]}" for group in groups],
        }
        for row in rows
    ]
    num_wrong = int((table.scores.exact_match < 1).sum())
    page.add("errors", "Worst errors", _browser(len(rows), num_wrong, "".join(options)))
    shown = {"contexts": list(contexts), "examples": examples}
    page.data["error-data"] = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _browser(num_shown: int, num_wrong: int, options: str) -> str:
    return (
        f"<p>{num_shown:,} of the {num_wrong:,} questions that are not answered exactly: by F1, lowest first, and then "
        "by probability, the surest first. The arrow keys turn the pages. The address names what is shown.</p>"
        '<form class="controls" id="browse" role="search" aria-label="Errors">'
        f'<label>Slice <select id="slice"><option value="">all</option>{options}</select></label>'
        '<label>Text <input type="search" id="search" autocomplete="off"></label>'
        '<button type="button" id="previous" aria-label="Previous error">&#8592; Previous</button>'
        '<output id="place" aria-live="polite" for="slice search"></output>'
        '<button type="button" id="next" aria-label="Next error">Next &#8594;</button></form>'
        '<p class="legend"><mark class="reference">reference answer</mark><mark class="predicted">prediction</mark>'
        '<mark class="both">both</mark></p>'
        '<article id="example" tabindex="0" aria-label="Error"><p>This part needs JavaScript.</p></article>'
    )


def _references(table: QuestionTable, row: int) -> str:
    return " | ".join(dict.fromkeys(table.references[row])) or _NO_ANSWER


def _range(score: Interval) -> str:
    return f"[{score.low:.1f}, {score.high:.1f}]"


def _signed(difference: Difference) -> str:
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"
