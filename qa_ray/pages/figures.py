"""The pictures of the HTML report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from qa_ray.pages.page import FIRST, HEIGHT, INK, MUTED, SECOND, THIRD, styled
from qa_ray.scores.analysis import Calibration, PrecisionRecall, Slice, ThresholdCurve, spread
from qa_ray.scores.intervals import Interval, bracketed
from qa_ray.tracking.metrics import EVAL_PREFIX, SHARE_PREFIX, TRAIN_LOSS

_PERCENT = (0, 100)
_SHARE = (0, 1.02)
_MAX_POINTS = 1000

Line = Mapping[str, Any]
"""A line of metrics.jsonl: phase, step and metrics, null where they were not finite."""


def loss_curves(history: Sequence[Line]) -> go.Figure | None:
    """Training and validation loss by step; None where there is none of either."""
    figure = go.Figure()
    _curve(figure, history, TRAIN_LOSS, "training", FIRST, "lines")
    _curve(figure, history, f"{EVAL_PREFIX}loss", "validation", SECOND, "lines+markers")
    _curve(figure, history, f"{SHARE_PREFIX}loss", "validation, on a share", SECOND, "lines+markers")
    return styled(figure, x="optimizer step", y="loss (nats)", from_zero=True) if figure.data else None


def score_curves(history: Sequence[Line]) -> go.Figure | None:
    """Validation scores by step; None where there are none."""
    figure = go.Figure()
    _curve(figure, history, f"{EVAL_PREFIX}f1", "F1", FIRST, "lines+markers")
    _curve(figure, history, f"{EVAL_PREFIX}exact_match", "exact match", SECOND, "lines+markers")
    _curve(figure, history, f"{SHARE_PREFIX}f1", "F1, on a share", FIRST, "lines+markers")
    _curve(figure, history, f"{SHARE_PREFIX}exact_match", "exact match, on a share", SECOND, "lines+markers")
    return styled(figure, x="optimizer step", y="percent", from_zero=True) if figure.data else None


def slice_bars(slices: Sequence[Slice]) -> go.Figure:
    """F1 and exact match of each slice with their confidence intervals, and its number of questions."""
    labels = [f"{part.label}  ({part.number:,})" for part in slices]
    figure = go.Figure()
    for name, colour, scores in (
        ("F1", FIRST, [part.f1 for part in slices]),
        ("exact match", SECOND, [part.exact_match for part in slices]),
    ):
        figure.add_bar(
            name=name,
            y=labels,
            x=[score.mean for score in scores],
            orientation="h",
            marker_color=colour,
            error_x={**_whiskers(scores), "color": INK, "thickness": 1, "width": 3},
            customdata=[bracketed(score) for score in scores],
            hovertemplate="%{y}: %{x:.1f} %{customdata}<extra>" + name + "</extra>",
        )
    styled(figure, x="percent", y=None, height=90 + 44 * len(slices))
    figure.update_xaxes(range=_PERCENT)
    # Plotly draws the first category lowest.
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    return figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.08)


def reliability(calibration: Calibration) -> go.Figure:
    """Share of right predictions by their probability, above the number of questions in each bin."""
    probability = [part.probability for part in calibration.bins]
    numbers = [part.number for part in calibration.bins]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.75, 0.25], vertical_spacing=0.06)
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"color": MUTED, "dash": "dot"}, hoverinfo="skip"
    )
    figure.add_scatter(
        x=probability,
        y=[part.share_right for part in calibration.bins],
        customdata=numbers,
        mode="lines+markers",
        name="this model",
        line={"color": FIRST, "width": 2},
        marker_size=9,
        hovertemplate="probability %{x:.2f}, right %{y:.2f}, %{customdata} questions<extra></extra>",
    )
    figure.add_bar(
        x=probability,
        y=numbers,
        width=0.06,
        marker_color=THIRD,
        name="questions",
        row=2,
        col=1,
        hovertemplate="%{y} questions<extra></extra>",
    )
    styled(figure, x=None, y=None, height=HEIGHT + 80)
    figure.update_xaxes(range=_SHARE)
    figure.update_xaxes(title_text="predicted probability", row=2, col=1)
    figure.update_yaxes(title_text="share right", range=_SHARE, row=1, col=1)
    return figure.update_yaxes(title_text="questions", nticks=3, row=2, col=1)


def threshold_scores(curve: ThresholdCurve, chosen: float | None, best: float | None) -> go.Figure:
    """Scores by no-answer threshold, with the chosen one and, where it is another, the best one of this data."""
    figure = go.Figure()
    for name, colour, values in (("F1", FIRST, curve.f1), ("exact match", SECOND, curve.exact_match)):
        figure.add_scatter(
            x=curve.threshold.tolist(),
            y=values.tolist(),
            mode="lines",
            name=name,
            line={"color": colour, "width": 2, "shape": "hv"},
            hovertemplate="threshold %{x:.2f}: %{y:.1f}<extra>" + name + "</extra>",
        )
    styled(figure, x="threshold: null \u2212 best score", y="percent")
    if chosen is not None:
        figure.add_vline(x=chosen, line={"color": INK, "width": 1.5}, name="chosen", showlegend=True)
    if best is not None and best != chosen:
        line = {"color": MUTED, "width": 1.5, "dash": "dash"}
        figure.add_vline(x=best, line=line, name="best here", showlegend=True)
    return figure


def precision_recall_curve(curve: PrecisionRecall) -> go.Figure:
    """Precision by recall."""
    figure = go.Figure()
    figure.add_scatter(
        x=curve.recall.tolist(),
        y=curve.precision.tolist(),
        mode="lines",
        line={"color": FIRST, "width": 2},
        hovertemplate="recall %{x:.2f}: precision %{y:.2f}<extra></extra>",
    )
    styled(figure, x="recall", y="precision")
    return figure.update_xaxes(range=_SHARE).update_yaxes(range=_SHARE)


def _curve(figure: go.Figure, history: Sequence[Line], metric: str, name: str, colour: str, mode: str) -> None:
    # A run that went on from a checkpoint may have recorded a step twice: the later one counts.
    found = {line["step"]: line[metric] for line in history if line.get(metric) is not None}
    steps = sorted(found)
    if steps:
        steps = [steps[place] for place in spread(len(steps), _MAX_POINTS).tolist()]
        values = [found[step] for step in steps]
        figure.add_scatter(
            x=steps,
            y=values,
            mode=mode,
            name=name,
            line={"color": colour, "width": 2},
            marker_size=8,
            hovertemplate="step %{x}: %{y:.3f}<extra>" + name + "</extra>",
        )


def _whiskers(scores: Sequence[Interval]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [_length(score.high - score.mean) for score in scores],
        "arrayminus": [_length(score.mean - score.low) for score in scores],
    }


def _length(length: float) -> float | str:
    """As Plotly takes it, which draws null as a whisker of no length, but nothing for what is not a number."""
    return length if np.isfinite(length) else "none"
