"""The HTML report's browser of errors: what its script reads, and the controls."""

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from qa_ray.pages.page import Page
from qa_ray.scores import analysis
from qa_ray.scores.question_table import QuestionTable
from qa_ray.storage.strict_json import to_json

MAX_ERRORS = 200
MAX_CONTEXT = 10_000
"""Characters of a context that is shown whole."""
_AROUND = 2_000  # characters shown on either side of a span in a longer one
GAP = " [\u2026] "


def add_errors(page: Page, table: QuestionTable) -> None:
    """Add the section of the worst errors, and its data."""
    rows = analysis.worst_errors(table, MAX_ERRORS)
    if not rows:
        page.add("errors", "Worst errors", "<p>Every question is answered exactly.</p>")
        return
    groups = analysis.groupings(table)
    num_wrong = int((table.scores.exact_match < 1).sum())
    sure = table.probability is not None
    page.add("errors", "Worst errors", _browser(len(rows), num_wrong, _options(groups, rows), sure=sure))
    contexts: dict[str, int] = {}
    examples = []
    for row in rows:
        spans = [table.reference_span[row].tolist(), table.predicted_span[row].tolist()]
        context, (reference, predicted) = excerpt(table.contexts[row], spans)
        examples.append(
            {
                "id": table.ids[row],
                "question": table.texts[row],
                "context": contexts.setdefault(context, len(contexts)),
                "references": list(table.references[row]),
                "prediction": table.predictions[row],
                "probability": None if table.probability is None else round(float(table.probability[row]), 4),
                "f1": round(float(table.scores.f1[row]), 4),
                "reference_span": reference,
                "predicted_span": predicted,
                "slices": [f"{group.name}: {group.labels[group.slice_of[row]]}" for group in groups],
            }
        )
    shown = {"contexts": list(contexts), "examples": examples}
    page.data["error-data"] = to_json(shown, ensure_ascii=False, separators=(",", ":"))


def excerpt(context: str, spans: Sequence[Sequence[int]]) -> tuple[str, list[list[int]]]:
    """A context and its spans, [begin, end) or -1; of a long context, what stands around the spans, and where."""
    if len(context) <= MAX_CONTEXT:
        return context, [list(span) for span in spans]
    pieces: list[list[int]] = []
    for begin, end in sorted((span[0], span[1]) for span in spans if span[0] >= 0) or [(0, 0)]:
        first, last = max(0, begin - _AROUND), min(len(context), end + _AROUND)
        if pieces and first <= pieces[-1][1]:
            pieces[-1][1] = max(last, pieces[-1][1])
        else:
            pieces.append([first, last])
    # With an empty piece at either edge, there is a gap wherever something is left out.
    cuts = [[0, 0], *pieces, [len(context)] * 2]
    text, moved = "", [list(span) for span in spans]
    for (_, left), (first, last) in pairwise(cuts):
        text += GAP if first > left else ""
        for number, span in enumerate(spans):
            if first <= span[0] and span[1] <= last:
                moved[number] = [place - first + len(text) for place in span]
        text += context[first:last]
    return text, moved


def _options(groups: Sequence[analysis.Grouping], rows: Sequence[int]) -> str:
    """The choices of slices, with their numbers of errors."""
    found = []
    for group in groups:
        numbers = {label: sum(group.labels[group.slice_of[row]] == label for row in rows) for label in group.labels}
        choices = "".join(
            f'<option value="{escape(f"{group.name}: {label}")}">{escape(label)} ({number})</option>'
            for label, number in numbers.items()
            if number
        )
        found.append(f'<optgroup label="{escape(group.name)}">{choices}</optgroup>')
    return "".join(found)


def _browser(num_shown: int, num_wrong: int, options: str, *, sure: bool) -> str:
    then = ", and then by probability, the surest first" if sure else ""
    return (
        f"<p>{num_shown:,} of the {num_wrong:,} questions that are not answered exactly: by F1, lowest first"
        f"{then}. The arrow keys turn the pages. The address names what is shown.</p>"
        '<form class="controls" id="browse" role="search" aria-label="Errors">'
        f'<label>Slice <select id="slice"><option value="">all</option>{options}</select></label>'
        '<label>Text <input type="search" id="search" autocomplete="off"></label>'
        '<div class="turn"><button type="button" id="previous" aria-label="Previous error">&#8592; Previous</button>'
        '<output id="place" aria-live="polite" for="slice search"></output>'
        '<button type="button" id="next" aria-label="Next error">Next &#8594;</button></div></form>'
        '<p class="legend"><mark class="reference">reference answer</mark><mark class="predicted">prediction</mark>'
        '<mark class="both">both</mark></p>'
        '<article id="example" tabindex="0" aria-label="Error"><p>This part needs JavaScript.</p></article>'
    )
