"""The inspection as one HTML page that needs no network."""

from html import escape

from qa_ray.data.validation import describe
from qa_ray.inspection.figures import length_bars
from qa_ray.inspection.findings import Finding
from qa_ray.inspection.job import Inspection
from qa_ray.inspection.split import InspectedSplit
from qa_ray.inspection.tables import SETTINGS_ABOUT, look_at, overview, settings
from qa_ray.pages.page import Page, grid, table

MAX_ROWS = 200
"""Rows that are shown of each kind."""
_LOOK = "look"


def render(inspection: Inspection) -> str:
    """Return the page."""
    config, page = inspection.config, Page()
    if inspection.refusals:
        said = "".join(f'<pre class="scroll">{escape(refusal)}</pre>' for refusal in inspection.refusals)
        page.add("refused", "Training would not start", said)
    if inspection.splits:
        head, *rows = overview(inspection)
        page.add("overview", "Overview", table("Figures of the splits", head, rows))
        page.add("lengths", "Lengths", grid(_lengths(page, inspection)))
        _add_settings(page, inspection)
    rows_to_look_at = [part for split in inspection.splits for part in _rows(inspection, split)]
    page.add(_LOOK, "Rows to look at", *(rows_to_look_at or ["<p>There is none.</p>"]))
    data = config.data
    facts = {
        "Model": config.model.name,
        **({"Hub data set": data.hub} if data.hub else {}),
        "Training data": data.train,
        "Validation data": data.validation,
        "Windows": f"{config.window.max_length} tokens, {config.window.stride} of them shared",
        "Batches": f"{config.batch.size} windows",
    }
    return page.render("Data of a run", facts, skip=(_LOOK, "To the rows to look at"))


def _lengths(page: Page, inspection: Inspection) -> list[str]:
    splits, limit = inspection.splits, inspection.config.evaluate.max_answer_length
    last = "The last bar takes all that are longer."
    found = (
        ("Questions", f"Tokens of a question, in percent of the questions. {last}", None,
         {split.name: split.corpus.question_lengths for split in splits}),
        ("Contexts", f"Tokens of a context, in percent of the different contexts. {last}", None,
         {split.name: split.context_lengths for split in splits}),
        ("Answers", f"Tokens of a question's first answer, in percent of the answers. {last}", limit,
         {split.name: split.answer_lengths for split in splits}),
    )  # fmt: skip
    return [
        page.figure(heading, text, length_bars(lengths, longest))
        for heading, text, longest, lengths in found
        if any(map(len, lengths.values()))
    ]


def _add_settings(page: Page, inspection: Inspection) -> None:
    head, *rows = settings(inspection)
    if rows:
        text = f"<p>An arrow points to the configuration's own windows. {SETTINGS_ABOUT}</p>"
        page.add("settings", "Other windows", text, table("What windows of other lengths and strides give", head, rows))


def _rows(inspection: Inspection, split: InspectedSplit) -> list[str]:
    """What there is to look at in a split, each kind folded."""
    parts = []
    if split.problems:
        rows = [[one.record, one.field, one.value, one.message] for one in split.problems[:MAX_ROWS]]
        kinds = f'<pre class="scroll">{escape(describe(split.problems, 0))}</pre>'
        content = kinds + table("Rows that cannot be used", ("row", "field", "value", "problem"), rows, kind="texts")
        parts.append(_folded(f"{split.name}: rows that cannot be used", split.rows_left_out, content))
    for finding in look_at(inspection, split):
        parts.append(_folded(f"{split.name}: {finding.heading}", len(finding.questions), _listed(split, finding)))
    return parts


def _listed(split: InspectedSplit, finding: Finding) -> str:
    corpus = split.corpus
    rows = [
        [corpus.record(question), corpus.id(question), corpus.text(question), finding.note(question)]
        for question in finding.questions[:MAX_ROWS].tolist()
    ]
    return f"<p>{escape(finding.meaning)}</p>" + table(
        finding.heading, ("row", "id", "question", "note"), rows, kind="texts"
    )


def _folded(heading: str, number: int, content: str) -> str:
    more = f"; the first {MAX_ROWS} are here" if number > MAX_ROWS else ""
    return f"<details><summary>{escape(heading)} ({number:,}{more})</summary>{content}</details>"
