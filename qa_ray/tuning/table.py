"""A sweep as a table for the terminal."""

from collections.abc import Sequence

from qa_ray.locations import within
from qa_ray.storage.layout import EVALUATION, MODEL
from qa_ray.tracking.metrics import EVAL_PREFIX
from qa_ray.tuning.conductor import shown
from qa_ray.tuning.history import Status, TrialRecord
from qa_ray.tuning.result import Sweep, SweepResult

MARK = "best"


def rows_of(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of trials; the last column says what became of each."""
    fields = list(sweep.space)
    head = ["trial", *(field.rpartition(".")[2] for field in fields), "epochs", "F1", "EM", "time", "result"]
    return head, [_row(record, sweep) for record in sweep.trials]


def text_table(sweep: Sweep) -> str:
    """The table of trials, and the best against the configuration's own values."""
    head, rows = rows_of(sweep)
    lines = aligned([head, *rows])
    return "\n".join([*lines, "", *gain(sweep)])


def gain(sweep: Sweep) -> list[str]:
    """A line that compares the best trial with the one of the configuration's own values, if there is one."""
    default = next((one for one in sweep.trials if one.number == 0), None) if sweep.tune.include_default else None
    if default is None or sweep.best is None:
        return []
    own, best = default.score(sweep.goal), sweep.best.score(sweep.goal)
    if own is None or best is None:
        return []
    by = sweep.goal.by
    if sweep.best.number == default.number:
        return [f"No trial was better than the default setting ({by} {own:.2f})."]
    stopped = f" after {default.epochs} of {sweep.epochs} epochs" if default.status is Status.STOPPED else ""
    return [f"{sweep.best.name} has {by} {best:.2f}, the default setting {own:.2f}{stopped}."]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with columns; the last column is as wide as it is."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(record: TrialRecord, sweep: Sweep) -> list[str]:
    epoch = record.best_epoch(sweep.goal)
    scores = record.evaluations[epoch] if epoch is not None else {}
    result = record.status + (f": {record.reason}" if record.reason else "")
    if sweep.best is not None and record.number == sweep.best.number:
        result = f"{result}, {MARK}"
    return [
        record.name,
        *(shown(record.parameters[field]) for field in sweep.space),
        str(record.epochs or ""),
        *(_score(scores.get(EVAL_PREFIX + name)) for name in ("f1", "exact_match")),
        _duration(record.seconds) if record.evaluations or record.seconds >= 1 else "",
        result + (" (default)" if record.number == 0 and sweep.tune.include_default else ""),
    ]


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def summary(result: SweepResult) -> str:
    """The table of trials, and where everything lies."""
    sweep, best = result.sweep, result.best
    return "\n".join(
        [
            "",
            text_table(sweep),
            "",
            f"sweep   {sweep.folder}",
            f"best    {best.folder}",
            f"model   {within(best.folder, MODEL)}",
            f"answers {within(best.folder, f'{EVALUATION}/predictions.json')}",
            f"report  {result.report}",
            f"MLflow  {result.record}",
            *(f"        {text}" for text in (best.logged_model, best.registered) if text),
            "",
            "Publish the best model with:",
            f"  python jobs/publish.py '{best.folder}' --repo-id USER/NAME",
        ]
    )
