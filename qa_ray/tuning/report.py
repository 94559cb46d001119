"""The picture report of a sweep: one HTML page that needs no network."""

from html import escape

from qa_ray.pages.page import Page, grid
from qa_ray.pages.page import table as table_of
from qa_ray.tuning import figures
from qa_ray.tuning.conductor import described
from qa_ray.tuning.importance import SURE_TRIALS, importance
from qa_ray.tuning.result import Sweep
from qa_ray.tuning.table import gain, rows_of

REPORT = "report.html"
"""The page, in the sweep's folder."""
_USUAL_MAP = ("optim.learning_rate", "window.stride")


def render(sweep: Sweep) -> str:
    """Return the page."""
    page = Page()
    _add_trials(page, sweep)
    if figures.scored(sweep):
        _add_scores(page, sweep)
        _add_values(page, sweep)
    space = ", ".join(f"{field} in {domain}" for field, domain in sweep.space.items())
    searched = f"sampler {sweep.tune.sampler}, scheduler {sweep.tune.scheduler}, {len(sweep.trials)} trials"
    facts = {"Sweep": sweep.name, **sweep.facts, "Space": space, "Searched by": searched}
    if sweep.best is not None:
        facts["Best"] = f"{sweep.best.name}: {described(sweep.best.parameters)}"
    return page.render(f"Sweep {sweep.name}", facts, skip=("trials", "To the trials"))


def _add_trials(page: Page, sweep: Sweep) -> None:
    head, rows = rows_of(sweep)
    notes = "".join(f"<p>{escape(line)}</p>" for line in gain(sweep))
    page.add("trials", "Trials", notes, table_of("Trials with their values, scores and ends", head, rows))


def _add_scores(page: Page, sweep: Sweep) -> None:
    by = sweep.goal.by
    drawn = [
        page.figure(
            "Over trials", f"Best {by} of each trial; a cross was stopped early.", figures.scores_by_trial(sweep)
        ),
        page.figure("Over time", f"Best {by} of each trial, at its end.", figures.scores_by_time(sweep)),
        page.figure("Over epochs", _rungs_text(sweep), figures.rungs(sweep)),
    ]
    page.add("scores", "Scores", grid(drawn))


def _rungs_text(sweep: Sweep) -> str:
    epochs = figures.rung_epochs(sweep)
    if not epochs:
        return "Validation score after each epoch; the brighter, the better."
    counts = []
    for epoch in epochs:
        came = [record for record in figures.scored(sweep) if record.epochs >= epoch]
        went_on = sum(record.epochs > epoch for record in came)
        counts.append(f"after epoch {epoch}, {went_on} of {len(came)} trials went on")
    return f"ASHA's rungs are dotted: {'; '.join(counts)}. A cross was stopped there."


def _add_values(page: Page, sweep: Sweep) -> None:
    drawn = [
        page.figure(
            "Parallel coordinates",
            "Each line is a trial through its values and its best score; the brighter, the better.",
            figures.parallel_coordinates(sweep),
        )
    ]
    fields = _map_fields(sweep)
    if fields is not None:
        names = [field.rpartition(".")[2].replace("_", " ") for field in fields]
        text = f"Best {sweep.goal.by} of each trial; a cross was stopped early."
        drawn.append(page.figure(f"{names[0].capitalize()} x {names[1]}", text, figures.score_map(sweep, fields)))
    found = importance(sweep)
    if found is not None:
        unsure = f" With fewer than {SURE_TRIALS} trials this is little more than a hint." * (
            found.num_trials < SURE_TRIALS
        )
        text = (
            f"Share of the variance of {sweep.goal.by} after epoch {found.epoch} that each field explains alone, over "
            f"{found.num_trials} trials (functional ANOVA).{unsure}"
        )
        drawn.append(page.figure("Importance", text, figures.importance_bars(found)))
    page.add("values", "Values", grid(drawn))


def _map_fields(sweep: Sweep) -> tuple[str, str] | None:
    """The two fields of the map: learning rate and stride, or else the first two."""
    if all(field in sweep.space for field in _USUAL_MAP):
        return _USUAL_MAP
    first, *others = sweep.space
    return (first, others[0]) if others else None
