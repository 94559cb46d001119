"""The pictures of a sweep's report: Optuna's own, of a study made from its trials, in the look of the pages."""

from collections.abc import Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import TrialState
from optuna.visualization import (
    plot_contour,
    plot_intermediate_values,
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_param_importances,
)
from plotly.colors import sample_colorscale

from qa_ray.pages.page import FIRST, HEIGHT, INK, MUTED, styled
from qa_ray.tuning.options import SchedulerKind
from qa_ray.tuning.space import Domain
from qa_ray.tuning.study import as_optuna, described
from qa_ray.tuning.trials import Status, Sweep, TrialRecord

MIN_TRIALS = 4
"""With fewer there is nothing to estimate importance from."""
_SCALE = "Plasma"
_CROSS = {Status.STOPPED: "x", Status.FAILED: "triangle-down"}


def compared_epoch(sweep: Sweep) -> float | None:
    """The last epoch after which every evaluated trial has a score, when the fields' importance can be estimated.

    None if there are too few trials for that, or all scored the same.
    """
    by_epoch = [record.scores(sweep.objective) for record in sweep.evaluated]
    epoch = max(set.intersection(*map(set, by_epoch)), default=None) if by_epoch else None
    scores = [] if epoch is None else [one[epoch] for one in by_epoch]
    return epoch if len(scores) >= MIN_TRIALS and max(scores) > min(scores) else None


def importance(sweep: Sweep, epoch: float, seed: int = 0) -> go.Figure:
    """How much each searched field matters: the share of the variance of the scores after `epoch` that it explains.

    The estimate is functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014).
    """
    figure = plot_param_importances(
        _study(sweep, sweep.evaluated),
        evaluator=FanovaImportanceEvaluator(seed=seed),
        target=lambda trial: trial.intermediate_values[epoch],
        target_name=sweep.objective.by,
    ).update_traces(marker_color=FIRST)
    _dressed(figure, "share of the variance", None, height=120 + 40 * len(sweep.space))
    return figure.update_xaxes(range=[0, 1]).update_yaxes(showgrid=False)


def scores_by_trial(sweep: Sweep) -> go.Figure:
    """Best score of each trial in turn, and the best so far."""
    return _scores(sweep, sweep.evaluated, [record.number for record in sweep.evaluated], "trial")


def scores_by_time(sweep: Sweep) -> go.Figure:
    """Best score of each trial by the minutes until its end, and the best so far."""
    begin = min(record.began for record in sweep.trials)
    records = sorted(sweep.evaluated, key=lambda record: record.ended)
    places = [(record.ended - begin) / 60 for record in records]
    return _scores(sweep, records, places, "minutes since the sweep began")


def _scores(sweep: Sweep, records: Sequence[TrialRecord], places: Sequence[float], label: str) -> go.Figure:
    figure = plot_optimization_history(_study(sweep, records), target_name=sweep.objective.by)
    figure.update_traces(x=places)
    scores, best, *_ = figure.data
    scores.update(name="trials", hovertext=[_hover(record) for record in records])
    scores.marker.update(size=11, color=FIRST, symbol=[_symbol(record) for record in records])
    best.update(name="best so far", line={"color": MUTED, "width": 2, "shape": "hv"}, hoverinfo="skip")
    figure.data = (best, scores)
    return _dressed(figure, label, sweep.objective.by)


def scores_by_epoch(sweep: Sweep) -> go.Figure:
    """Scores by epoch; a trial that was stopped early ends in a cross, and rungs are where that may happen."""
    figure = plot_intermediate_values(_study(sweep, sweep.evaluated))
    scores = [sweep.objective.by.sign * (record.score(sweep.objective) or 0) for record in sweep.evaluated]
    for trace, record, colour in zip(figure.data, sweep.evaluated, _colours(scores), strict=True):
        symbols = ["circle"] * (len(record.scores(sweep.objective)) - 1) + [_symbol(record)]
        trace.update(name=record.name, hovertext=_hover(record), line={"color": colour, "width": 2})
        trace.marker.update(size=9, symbol=symbols)
    for epoch in rung_epochs(sweep):
        figure.add_vline(x=epoch, line={"color": MUTED, "width": 1, "dash": "dot"})
    _dressed(figure, "epoch", sweep.objective.by)
    first = min(min(record.scores(sweep.objective)) for record in sweep.evaluated)
    return figure.update_xaxes(dtick=min(first, 1), range=[first - 0.2, sweep.config.train.epochs + 0.2])


def rung_epochs(sweep: Sweep) -> list[float]:
    """Epochs, or parts of one, after which ASHA may stop a trial."""
    if sweep.config.tune.scheduler is not SchedulerKind.ASHA:
        return []
    epochs, epoch = [], sweep.config.tune.grace
    while epoch < sweep.config.train.epochs:
        epochs.append(epoch)
        epoch *= sweep.config.tune.reduction
    return epochs


def parallel_coordinates(sweep: Sweep) -> go.Figure:
    """Each trial as a line through its score and its values; the brighter, the better."""
    figure = plot_parallel_coordinate(_study(sweep, sweep.evaluated), target_name=sweep.objective.by)
    *lines, scale = figure.data
    # Their order is Optuna's; the first axis is the score.
    shares = [line.y[0] if sweep.objective.by.sign > 0 else 1 - line.y[0] for line in lines]
    for line, colour in zip(lines, _colours(shares), strict=True):
        line.update(line={"color": colour, "width": 2}, opacity=0.9)
    scale.marker.colorscale = _SCALE
    figure.update_layout(shapes=[], annotations=[note.update(font_color=INK) for note in figure.layout.annotations])
    return _dressed(figure, None, None, height=HEIGHT + 40)


def score_map(sweep: Sweep, x: str, y: str) -> go.Figure:
    """Trials by the values of two fields, the first by its name along x, and their scores as colours."""
    figure = plot_contour(_study(sweep, sweep.evaluated), [x, y], target_name=sweep.objective.by)
    figure.update_traces(colorscale=_SCALE, selector={"type": "contour"})
    return _dressed(figure, x, y)


def _dressed(figure: go.Figure, x: str | None, y: str | None, *, height: int = HEIGHT) -> go.Figure:
    styled(figure.update_layout(title=None), x=x, y=y, height=height)
    # Optuna names fields in full.
    return figure.update_xaxes(exponentformat="e", automargin=True).update_yaxes(exponentformat="e", automargin=True)


def _study(sweep: Sweep, records: Sequence[TrialRecord]) -> optuna.Study:
    """Evaluated trials as Optuna knows them, all of them as complete: they are shown with their best scores."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction=sweep.objective.direction)
    space = {
        field: _holding(domain, [record.parameters[field] for record in records])
        for field, domain in sweep.space.items()
    }
    study.add_trials([as_optuna(record, space, sweep.objective, TrialState.COMPLETE) for record in records])
    return study


def _holding(domain: Domain, values: Sequence[Any]) -> Domain:
    """A domain that holds the configuration's own value too, which may lie outside of the one that is searched."""
    if isinstance(domain, CategoricalDistribution):
        return CategoricalDistribution(tuple(dict.fromkeys([*domain.choices, *values])))
    return type(domain)(min(domain.low, *values), max(domain.high, *values), log=domain.log)


def _colours(values: Sequence[float]) -> list[str]:
    """A colour for each value: from dark for the lowest to bright for the highest."""
    low, span = min(values), max(values) - min(values) or 1
    # Nothing of the palest end, which is hard to see on white.
    return [str(colour) for colour in sample_colorscale(_SCALE, [0.9 * (value - low) / span for value in values])]


def _symbol(record: TrialRecord) -> str:
    return _CROSS.get(record.status, "circle")


def _hover(record: TrialRecord) -> str:
    return f"{record.name}<br>{described(record.parameters)}"
