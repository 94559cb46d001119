"""What a sweep shows: a table for the terminal, and one HTML page with its pictures that needs no network."""

from html import escape

from qa_ray.config.data import DataConfig
from qa_ray.config.policies import BestBy, Schedule
from qa_ray.locations import within
from qa_ray.pages.page import Page, grid, table
from qa_ray.storage.run_folder import EVALUATION, MODEL
from qa_ray.tuning import figures
from qa_ray.tuning.options import SEED
from qa_ray.tuning.seeds import rank
from qa_ray.tuning.space import written
from qa_ray.tuning.study import described, shown
from qa_ray.tuning.trials import Status, Sweep, SweepResult, TrialRecord

REPORT = "report.html"
"""The page, in the sweep's folder."""
SURE_TRIALS = 20
"""With fewer the estimate of importance is little more than a hint."""
_USUAL_MAP = ("optim.learning_rate", "window.stride")


def summary(result: SweepResult) -> str:
    """The table of trials, and where everything lies."""
    sweep, best = result.sweep, result.best
    return "\n".join(
        [
            "",
            text_table(sweep),
            "",
            f"sweep   {sweep.folder.uri}",
            f"best    {best.folder}",
            f"model   {within(best.folder, MODEL)}",
            f"answers {within(best.folder, f'{EVALUATION}/predictions.json')}",
            f"report  {result.report}",
            f"MLflow  {result.record}",
            *(f"        {text}" for text in (best.logged_model, best.registered) if text),
            "",
            "Publish the best model with:",
            f"  qa-ray publish '{best.folder}' --repo-id USER/NAME",
        ]
    )


def text_table(sweep: Sweep) -> str:
    """The table of trials, and the best against the configuration's own values."""
    rows = _rows(sweep)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", *_notes(sweep)])


def render(sweep: Sweep) -> str:
    """Return the page."""
    page = Page()
    head, *rows = _rows(sweep)
    notes = "".join(f"<p>{escape(line)}</p>" for line in _notes(sweep))
    page.add("trials", "Trials", notes, table("Trials with their values, scores and ends", head, rows, kind="outcomes"))
    if sweep.evaluated:
        page.add("scores", "Scores", grid(_scores(page, sweep)))
        page.add("values", "Values", grid(_values(page, sweep)))
    data, tune = sweep.config.data, sweep.config.tune
    facts = {
        "Sweep": sweep.folder.name,
        "Model": sweep.config.model.name,
        "Trained on": _source(data.hub, data.train, data.max_train_examples),
        "Measured on": _measured_on(data),
        "Space": ", ".join(f"{field} in {written(domain)}" for field, domain in sweep.space.items()),
        "Searched by": f"sampler {tune.sampler}, scheduler {tune.scheduler}, {len(sweep.searched)} trials",
    }
    if sweep.best is not None:
        facts["Best"] = f"{sweep.best.name}: {described(sweep.best.parameters)}"
    return page.render(f"Sweep {sweep.folder.name}", facts, skip=("trials", "To the trials"))


def _source(hub: str | None, location: str, limit: int | None) -> str:
    place = f"{hub} {location}" if hub else location
    return place if limit is None else f"{place}, up to {limit:,} questions"


def _measured_on(data: DataConfig) -> str:
    place = _source(data.hub, getattr(data, data.field_of("validation")), data.max_validation_examples)
    return place if data.validation_share is None else f"{place}, {100 * data.validation_share:.3g}% of its contexts"


def _scores(page: Page, sweep: Sweep) -> list[str]:
    best = f"Best {sweep.objective.by} of each trial"
    return [
        page.figure("Over trials", f"{best}; a cross was stopped early.", figures.scores_by_trial(sweep)),
        page.figure("Over time", f"{best}, at its end.", figures.scores_by_time(sweep)),
        page.figure("Over epochs", _rungs_text(sweep), figures.scores_by_epoch(sweep)),
    ]


def _rungs_text(sweep: Sweep) -> str:
    counts = []
    for epoch in figures.rung_epochs(sweep):
        came = [record.epochs for record in sweep.evaluated if record.epochs >= epoch]
        counts.append(f"after epoch {epoch:g}, {sum(last > epoch for last in came)} of {len(came)} trials went on")
    if not counts:
        return "Validation score at each evaluation."
    return f"ASHA's rungs are dotted: {'; '.join(counts)}. A cross was stopped there."


def _values(page: Page, sweep: Sweep) -> list[str]:
    by = sweep.objective.by
    text = "Each line is a trial through its best score and its values; the brighter, the better."
    drawn = [page.figure("Parallel coordinates", text, figures.parallel_coordinates(sweep))]
    fields = _USUAL_MAP if sweep.space.keys() >= {*_USUAL_MAP} else list(sweep.space)[:2]
    if len(fields) == 2:
        x, y = sorted(fields)
        heading = " x ".join(field.rpartition(".")[2].replace("_", " ") for field in (x, y))
        text = f"Best {by} of each trial, and between them as it may be; the brighter, the better."
        drawn.append(page.figure(heading.capitalize(), text, figures.score_map(sweep, x, y)))
    epoch, number = figures.compared_epoch(sweep), len(sweep.evaluated)
    if epoch is not None:
        unsure = f" With fewer than {SURE_TRIALS} trials this is little more than a hint." * (number < SURE_TRIALS)
        text = (
            f"Share of the variance of {by} after epoch {epoch:g} that each field explains alone, over {number} trials "
            f"(functional ANOVA).{unsure}"
        )
        drawn.append(page.figure("Importance", text, figures.importance(sweep, epoch)))
    return drawn


def _notes(sweep: Sweep) -> list[str]:
    """What is to be known of the table, in lines."""
    return [*_seeds(sweep), *_gain(sweep), *_cut_short(sweep)]


def _cut_short(sweep: Sweep) -> list[str]:
    """A line on trials that were stopped while their learning rate was still high."""
    schedule = sweep.config.optim.schedule
    stopped = any(one.status is Status.STOPPED for one in sweep.trials)
    if not stopped or schedule not in (Schedule.LINEAR, Schedule.COSINE):
        return []
    return [
        f"Trials that were stopped had not come to the end of optim.schedule={schedule}: as runs of that length they "
        "would have had other learning rates, and other scores. With wsd only the last steps would differ."
    ]


def _seeds(sweep: Sweep) -> list[str]:
    """A line for each trial that has several seeds, the best mean first."""
    lines = []
    for place, one in enumerate(rank(sweep)):
        than = "" if place == 0 else ", worse than the first" if one.differs else ", no more than chance from the first"
        lines.append(
            f"{one.record.name}: {sweep.objective.by} {one.mean:.2f} +- {one.half_width:.2f} over {len(one.scores)} "
            f"seeds{than}."
        )
    return lines


def _gain(sweep: Sweep) -> list[str]:
    """A line that compares the best trial with the one of the configuration's own values, if there is one."""
    default, best, by = sweep.default, sweep.best, sweep.objective.by
    own, most = (one and one.score(sweep.objective) for one in (default, best))
    if default is None or best is None or own is None:
        return []
    if best == default:
        return [f"No trial was better than the default setting ({by} {own:.2f})."]
    stopped = f" after {default.epochs:g} of {sweep.config.train.epochs} epochs" * (default.status is Status.STOPPED)
    return [f"{best.name} has {by} {most:.2f}, the default setting {own:.2f}{stopped}."]


def _rows(sweep: Sweep) -> list[list[str]]:
    """Head and rows of the table of trials; the last column says what became of each."""
    fields = [field.rpartition(".")[2] for field in sweep.space]
    head = ["trial", *fields, "epochs", "F1", "EM", "time", "result"]
    return [head, *(_row(record, sweep) for record in sweep.trials)]


def _row(record: TrialRecord, sweep: Sweep) -> list[str]:
    epoch = record.best_epoch(sweep.objective)
    scores = (
        []
        if epoch is None
        else [record.evaluations[epoch][sweep.objective.name(by)] for by in (BestBy.F1, BestBy.EXACT_MATCH)]
    )
    minutes, seconds = divmod(round(record.seconds), 60)
    return [
        record.name,
        *(shown(record.parameters[field]) for field in sweep.space),
        f"{record.epochs:g}" if record.epochs else "",
        *([f"{score:.2f}" for score in scores] or ["", ""]),
        f"{minutes}:{seconds:02d}" if record.evaluations or record.seconds >= 1 else "",
        record.status
        + (f": {record.reason}" if record.reason else "")
        + (f", trial-{record.repeats:03d} with seed {record.parameters[SEED]}" if record.repeats is not None else "")
        + (", best" if record == sweep.best else "")
        + (" (default)" if record == sweep.default else ""),
    ]
