"""One HTML page that shows how good a model is and where it errs; it needs no network, and no file beside it."""

from collections.abc import Mapping, Sequence
from html import escape

from qa_ray.config.answering import NUM_RESAMPLES
from qa_ray.pages import figures
from qa_ray.pages.error_browser import add_errors
from qa_ray.pages.figures import Line
from qa_ray.pages.page import Page, grid
from qa_ray.pages.page import table as table_of
from qa_ray.schema import Float64s
from qa_ray.scores import analysis
from qa_ray.scores.intervals import Comparison, Interval, bracketed, headline_scores, verdict
from qa_ray.scores.question_table import QuestionTable

MAX_FLIPS = 200
_NO_ANSWER = "(no answer)"
_FLATTERED = ", which flatters: other questions would score somewhat lower."


def render(
    table: QuestionTable,
    metrics: Mapping[str, float],
    *,
    title: str,
    history: Sequence[Line] = (),
    facts: Mapping[str, str] | None = None,
    comparison: Comparison | None = None,
    scores: Mapping[str, Interval] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> str:
    """Return the page.

    Args:
        table: the questions of an evaluation.
        metrics: those of the same evaluation.
        title: what the page is called.
        history: lines of the run's metrics.jsonl, for the learning curves.
        facts: what else is to be told at the top, by name.
        comparison: with another model on the same questions.
        scores: what `headline_scores` makes of the table, if that is known.
        num_resamples: how often the questions are drawn for the confidence intervals.
        seed: of these draws.
    """
    page = Page()
    draws = {"num_resamples": num_resamples, "seed": seed}
    scores = headline_scores(table, **draws) if scores is None else scores
    _add_scores(page, table, metrics, scores, num_resamples)
    if comparison is not None:
        _add_comparison(page, table, scores, comparison)
    _add_learning(page, history)
    _add_slices(page, table, draws)
    if table.probability is not None:
        _add_calibration(page, table.probability, table)
    if table.no_answer and table.null_odds is not None:
        _add_no_answer(page, table, table.null_odds)
    add_errors(page, table)
    return page.render(title, facts or {})


def _add_scores(
    page: Page, table: QuestionTable, metrics: Mapping[str, float], scores: Mapping[str, Interval], num_resamples: int
) -> None:
    tiles = "".join(
        f'<div class="tile">{heading}<b>{score.mean:.1f}</b><span class="muted">{bracketed(score)}</span></div>'
        for heading, score in (("Exact match", scores["exact_match"]), ("F1", scores["f1"]))
    )
    rows = [[name, f"{score.mean:.2f}", bracketed(score)] for name, score in scores.items()]
    note = (
        f"{len(table):,} questions. Brackets hold 95% confidence intervals from {num_resamples:,} resamples of the "
        "questions: they tell how far the scores would move with other questions of the same kind, not with another "
        f"training seed. Texts are compared by {escape(table.language.rule)}."
    )
    threshold = ""
    if table.threshold is not None:
        best = (
            f"It is the best one for these very questions{_FLATTERED}"
            if table.is_flattered
            else f"The best one for these questions is {table.best_threshold:.3f}, with F1 {metrics['best_f1']:.2f}."
        )
        threshold = (
            "<p>No answer is predicted where its score exceeds that of the best answer by more than the threshold "
            f"{table.threshold:.3f}. {best}</p>"
        )
    elif table.best_threshold is not None:
        threshold = (
            "<p>No answer is predicted where the predictions are empty. With the best threshold for these questions, "
            f"{table.best_threshold:.3f}, F1 would be {metrics['best_f1']:.2f}.</p>"
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
            *(f"{score.mean:.2f} {bracketed(score)}" for score in (scores[name], comparison.scores[name])),
            f"{difference.mean:+.2f} {bracketed(difference, '+.2f')}",
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
    flattered = comparison.other.is_flattered
    more = f", of which the first {MAX_FLIPS} are here" if len(comparison.flips) > MAX_FLIPS else ""
    page.add(
        "comparison",
        "Comparison",
        f"<p>Against {escape(comparison.name)}, on the same questions. By F1, "
        f"{verdict(comparison.differences['f1'], 'this model', 'the other model')}.</p>",
        table_of("Scores of both models", ("score", "this model", "other model", "difference", "resamples won"), rows),
        '<p class="muted">Scores in percent with 95% confidence intervals. Both models are scored on the same '
        "resamples; this one wins those in which its score is higher, and half of those that are even."
        + (f" The other model's threshold is the best one for these very questions{_FLATTERED}" if flattered else "")
        + "</p>",
        f"<p>{len(comparison.flips):,} questions are answered exactly by one model only: {won:,} won, "
        f"{len(comparison.flips) - won:,} lost{more}.</p><details><summary>Questions that flipped</summary>",
        table_of(
            "Questions that flipped", ("", "question", "reference", "this model", "other model"), flips, kind="texts"
        ),
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
        "Context length": f"{table.unit.capitalize()} of the context.",
        "Answer position": "Where in the context the first reference answer begins.",
        "Windows": "Windows that the context was cut into.",
    }
    drawn = []
    groupings = analysis.groupings(table)
    for grouping, found in zip(groupings, analysis.slice_scores(table, groupings, **draws), strict=True):
        rows = [
            [
                part.label,
                f"{part.number:,}",
                *(f"{score.mean:.1f} {bracketed(score)}" for score in (part.exact_match, part.f1)),
            ]
            for part in found
        ]
        numbers = table_of(grouping.name, ("slice", "questions", "exact match", "F1"), rows)
        drawn.append(page.figure(grouping.name, texts[grouping.name], figures.slice_bars(found), numbers))
    note = (
        "<p>In brackets behind each name: its number of questions. Whiskers are 95% confidence intervals; slices of "
        f"fewer than {analysis.FEWEST} questions have none, and where all answers are right, or all wrong, they are "
        "too narrow.</p>"
    )
    page.add("slices", "Scores by kind of question", note, grid(drawn))


def _add_calibration(page: Page, probability: Float64s, table: QuestionTable) -> None:
    found = analysis.calibrate(probability, table.scores.exact_match)
    rows = [[f"{part.probability:.3f}", f"{part.share_right:.3f}", f"{part.number:,}"] for part in found.bins]
    numbers = table_of("Calibration", ("mean probability", "share right", "questions"), rows)
    drawn = page.figure("Reliability", "Share right by predicted probability.", figures.reliability(found), numbers)
    text = (
        f"<p>Expected calibration error: <strong>{found.expected_error:.3f}</strong>. It is the mean distance between "
        "the probability that the model gives its prediction, among the candidates that it kept for the question, and "
        "how often such predictions are right (exact match), in ten bins of equal width. Points below the dotted line "
        "are overconfident.</p>"
    )
    page.add("calibration", "Calibration", text, grid([drawn]))


def _add_no_answer(page: Page, table: QuestionTable, null_odds: Float64s) -> None:
    drawn = []
    curve = analysis.threshold_curve(table, null_odds)
    if len(curve.threshold):
        figure = figures.threshold_scores(curve, table.threshold, table.best_threshold)
        drawn.append(page.figure("Threshold", "Scores of all questions by no-answer threshold.", figure))
    found = analysis.precision_recall(table, null_odds)
    text = (
        "Ever more questions are answered, those first where no answer scores lowest against the best answer. A "
        f"question counts as right with its F1. Average precision: {found.average_precision:.3f}."
    )
    drawn.append(page.figure("Precision and recall", text, figures.precision_recall_curve(found)))
    page.add("no-answer", "No answer", grid(drawn))


def _references(table: QuestionTable, row: int) -> str:
    return " | ".join(dict.fromkeys(table.references[row])) or _NO_ANSWER
