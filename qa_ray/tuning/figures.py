"""The pictures of a sweep's report."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from qa_ray.pages.page import FIRST, HEIGHT, INK, MUTED, styled
from qa_ray.tuning.conductor import described, shown
from qa_ray.tuning.domains import Choice, Domain
from qa_ray.tuning.history import Status, TrialRecord
from qa_ray.tuning.importance import Importance
from qa_ray.tuning.result import Sweep

_SYMBOLS = {
    Status.FINISHED: "circle",
    Status.STOPPED: "x",
    Status.FAILED: "triangle-down",
    Status.RUNNING: "circle-open",
}


def scores_by_trial(sweep: Sweep) -> go.Figure:
    """Best score of each trial in turn, and the best so far."""
    return _scores(sweep, [record.number for record in scored(sweep)], "trial")


def scores_by_time(sweep: Sweep) -> go.Figure:
    """Best score of each trial by the minutes of work until its end, and the best so far."""
    begin = min(record.began for record in sweep.trials)
    return _scores(sweep, [(record.ended - begin) / 60 for record in scored(sweep)], "minutes since the sweep began")


def rungs(sweep: Sweep) -> go.Figure:
    """Scores by epoch; a trial that was stopped early ends in a cross, and rungs are where that may happen."""
    figure = go.Figure()
    for record, colour in zip(scored(sweep), _colours(sweep), strict=True):
        epochs = sorted(record.evaluations)
        figure.add_scatter(
            x=epochs,
            y=[record.evaluations[epoch][sweep.goal.metric] for epoch in epochs],
            mode="lines+markers",
            name=record.name,
            showlegend=False,
            line={"color": colour, "width": 2},
            marker={"size": 9, "symbol": ["circle"] * (len(epochs) - 1) + [_SYMBOLS[record.status]]},
            hovertemplate=f"{record.name}, epoch %{{x}}: %{{y:.2f}}<br>{described(record.parameters)}<extra></extra>",
        )
    styled(figure, x="epoch", y=sweep.goal.by)
    figure.update_xaxes(dtick=1, range=[0.8, sweep.epochs + 0.2])
    for epoch in rung_epochs(sweep):
        figure.add_vline(x=epoch, line={"color": MUTED, "width": 1, "dash": "dot"})
    return figure


def rung_epochs(sweep: Sweep) -> list[int]:
    """Epochs after which ASHA may stop a trial."""
    if sweep.tune.scheduler != "asha":
        return []
    epochs, epoch = [], sweep.tune.grace
    while epoch < sweep.epochs:
        epochs.append(epoch)
        epoch *= sweep.tune.reduction
    return epochs


def parallel_coordinates(sweep: Sweep) -> go.Figure:
    """Each trial as a line through its values and its score; the brighter, the better."""
    records, fields = scored(sweep), list(sweep.space)
    scores = [_score(record, sweep) for record in records]
    # Plotly's own kind of figure compiles code when it is shown, which this page forbids.
    columns = [_column([record.parameters[field] for record in records], sweep.space[field]) for field in fields]
    columns.append(_column(scores, None))
    figure = go.Figure()
    for place, (record, colour) in enumerate(zip(records, _colours(sweep), strict=True)):
        figure.add_scatter(
            x=list(range(len(columns))),
            y=[heights[place] for heights, _ in columns],
            mode="lines+markers",
            showlegend=False,
            line={"color": colour, "width": 2},
            hovertemplate=f"{record.name}: {scores[place]:.2f}<br>{described(record.parameters)}<extra></extra>",
        )
    styled(figure, x=None, y=None, height=HEIGHT + 40)
    figure.update_yaxes(visible=False, range=[-0.12, 1.08])
    names = [*(field.rpartition(".")[2] for field in fields), sweep.goal.by]
    figure.update_xaxes(tickvals=list(range(len(columns))), ticktext=names, range=[-0.3, len(columns) - 0.5])
    for place, (_, marks) in enumerate(columns):
        for text, height in marks:
            figure.add_annotation(
                x=place,
                y=height,
                text=text,
                showarrow=False,
                xanchor="left",
                xshift=8,
                yshift=9,
                font={"size": 11, "color": MUTED},
            )
    return figure


def score_map(sweep: Sweep, fields: tuple[str, str]) -> go.Figure:
    """Trials by two of their values, with their scores beside them."""
    records = scored(sweep)
    figure = go.Figure()
    figure.add_scatter(
        x=[_axis_value(record.parameters[fields[0]], sweep.space[fields[0]]) for record in records],
        y=[_axis_value(record.parameters[fields[1]], sweep.space[fields[1]]) for record in records],
        mode="markers+text",
        text=[f"{_score(record, sweep):.1f}" for record in records],
        textposition="top center",
        showlegend=False,
        marker={
            "size": 15,
            "color": _colours(sweep),
            "symbol": [_SYMBOLS[record.status] for record in records],
            "line": {"color": INK, "width": 1},
        },
        customdata=[f"{record.name}: {described(record.parameters)}" for record in records],
        hovertemplate="%{customdata}<extra></extra>",
    )
    styled(figure, x=fields[0], y=fields[1])
    for update, field in ((figure.update_xaxes, fields[0]), (figure.update_yaxes, fields[1])):
        domain = sweep.space[field]
        if isinstance(domain, Choice):
            known = {record.parameters[field] for record in records}
            values = sorted({*domain.values, *known}, key=_order)
            update(type="category", categoryarray=[str(value) for value in values], range=[-0.5, len(values) - 0.3])
        elif domain.log:
            update(type="log", dtick="D2", exponentformat="e")
    return figure


def importance_bars(found: Importance) -> go.Figure:
    """Share of the scores' variance that each field explains."""
    figure = go.Figure()
    figure.add_bar(
        x=[100 * share for share in found.shares.values()],
        y=list(found.shares),
        orientation="h",
        marker_color=FIRST,
        hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
    )
    styled(figure, x="percent of the variance", y=None, height=120 + 40 * len(found.shares))
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    return figure.update_xaxes(range=[0, 100])


def scored(sweep: Sweep) -> list[TrialRecord]:
    """Trials that were evaluated at least once."""
    return [record for record in sweep.trials if record.evaluations]


def _scores(sweep: Sweep, places: Sequence[float], label: str) -> go.Figure:
    records = scored(sweep)
    ordered = sorted(zip(places, [_score(record, sweep) for record in records], strict=True))
    best = [sweep.goal.best([score for _, score in ordered[: place + 1]]) for place in range(len(ordered))]
    figure = go.Figure()
    figure.add_scatter(
        x=[place for place, _ in ordered],
        y=best,
        mode="lines",
        name="best so far",
        line={"color": MUTED, "width": 2, "shape": "hv"},
        hoverinfo="skip",
    )
    for status in dict.fromkeys(record.status for record in records):
        mine = [(place, record) for place, record in zip(places, records, strict=True) if record.status is status]
        figure.add_scatter(
            x=[place for place, _ in mine],
            y=[_score(record, sweep) for _, record in mine],
            mode="markers",
            name=status.value,
            marker={"size": 11, "color": FIRST, "symbol": _SYMBOLS[status]},
            customdata=[f"{record.name}<br>{described(record.parameters)}" for _, record in mine],
            hovertemplate="%{customdata}<br>%{y:.2f}<extra></extra>",
        )
    return styled(figure, x=label, y=sweep.goal.by)


def _score(record: TrialRecord, sweep: Sweep) -> float:
    score = record.score(sweep.goal)
    assert score is not None  # of trials that were evaluated
    return score


def _colours(sweep: Sweep) -> list[str]:
    """A colour for each evaluated trial: from dark for the worst to bright for the best."""
    scores = [_score(record, sweep) for record in scored(sweep)]
    low, high = min(scores), max(scores)
    shares = [(score - low) / (high - low) if high > low else 1.0 for score in scores]
    if sweep.goal.mode == "min":
        shares = [1 - share for share in shares]
    return [str(colour) for colour in sample_colorscale("Plasma", [0.9 * share for share in shares])]


def _column(values: Sequence[Any], domain: Domain | None) -> tuple[list[float], list[tuple[str, float]]]:
    """Heights of values on an axis from 0 to 1, and the marks on it."""
    if isinstance(domain, Choice):
        kinds = sorted(set(values), key=_order)
        heights = {kind: place / max(len(kinds) - 1, 1) for place, kind in enumerate(kinds)}
        return [heights[value] for value in values], [(str(kind), height) for kind, height in heights.items()]
    scale = math.log if domain is not None and domain.log else float
    low, high = min(values), max(values)
    span = scale(high) - scale(low)
    marks = [(shown(float(low)), 0.0), (shown(float(high)), 1.0)]
    return [(scale(value) - scale(low)) / span if span else 0.5 for value in values], marks


def _axis_value(value: Any, domain: Domain) -> Any:
    return str(value) if isinstance(domain, Choice) else value


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then texts."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))
