"""The inspection's tables, as rows of text for the terminal and the page."""

from collections.abc import Sequence

from qa_ray.inspection.findings import Finding
from qa_ray.inspection.job import Inspection
from qa_ray.inspection.split import TRAIN, InspectedSplit, figures

Rows = Sequence[Sequence[str]]
"""The head of a table, and its rows."""
SETTINGS_ABOUT = (
    "Whole are answers that some window holds; others can be neither learnt nor found. Tokens are those of an epoch on "
    "one device, with padding."
)


def overview(inspection: Inspection) -> Rows:
    """Counts, lengths, windows and findings, a column for each split."""
    config = inspection.config
    splits = [(figures(split, config), inspection.findings[split.name]) for split in inspection.splits]
    rows = [["", *(split.name for split in inspection.splits)]]

    def row(name: str, key: str, *, share: bool = False) -> None:
        cells = [_counted(found.get(key), found["questions"] if share else None) for found, _ in splits]
        rows.append([name, *cells])

    row("questions", "questions")
    row("  with several answers", "several_answers", share=True)
    row("  without an answer", "unanswerable", share=True)
    row("rows that cannot be used", "rows_left_out")
    row("contexts", "contexts")
    for kind in ("question", "context", "answer"):
        spreads = [found[f"{kind}_tokens"] for found, _ in splits]
        cells = [f"{one['median']:,.0f} / {one['p95']:,} / {one['most']:,}" for one in spreads]
        rows.append([f"{kind} tokens: median / 95% / most", *cells])
    row(f"windows of {config.window.max_length} tokens, {config.window.stride} shared", "windows")
    if TRAIN in inspection.findings:
        row("tokens of an epoch, with padding", "epoch_tokens")
        rows.append(["  of them padding", *(_percent(found.get("padding")) for found, _ in splits)])
    headings = {finding.key: finding.heading for _, findings in splits for finding in findings}
    for key, heading in headings.items():
        found_here = [next((one for one in findings if one.key == key), None) for _, findings in splits]
        rows.append([heading, *(_counted(one and len(one.questions), one and one.total) for one in found_here)])
    return rows


def settings(inspection: Inspection) -> Rows:
    """What each length and stride of windows gives; an arrow points to those of the configuration."""
    head = ["max_length, stride"]
    for split in inspection.splits:
        head += [f"{split.name} windows", f"whole of {len(split.answer_lengths):,}"]
        head += ["tokens", "padding"] * (split.name == TRAIN)
    rows = [head]
    for setting in inspection.settings:
        window = setting.window
        row = [f"{window.max_length}, {window.stride}" + " <-" * (window == inspection.config.window)]
        for split in inspection.splits:
            row += [f"{setting.windows[split.name]:,}", f"{setting.whole[split.name]:,}"]
            if split.name == TRAIN:
                row += [_counted(setting.epoch["epoch_tokens"]), _percent(setting.epoch["padding"])]
        rows.append(row)
    return rows


def look_at(inspection: Inspection, split: InspectedSplit) -> list[Finding]:
    """The findings of a split that have a question."""
    return [finding for finding in inspection.findings[split.name] if len(finding.questions)]


def _counted(number: object, total: object = None) -> str:
    """A number, with its share of the total; nothing where there is none."""
    if not isinstance(number, int):
        return ""
    share = f" ({number / total:.1%})" if isinstance(total, int) and number else ""
    return f"{number:,}{share}"


def _percent(share: object) -> str:
    return f"{share:.1%}" if isinstance(share, float) else ""
