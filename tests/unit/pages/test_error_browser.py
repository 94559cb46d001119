"""What the browser of errors shows of long contexts."""

import numpy as np
import pytest
from evaluations import table_of
from pages import Page

from qa_ray.pages.error_browser import GAP, MAX_CONTEXT, excerpt
from qa_ray.pages.report import render

NONE = [-1, -1]


def test_context_that_is_not_long_is_shown_whole() -> None:
    context = "a" * MAX_CONTEXT
    assert excerpt(context, [[0, 4], NONE]) == (context, [[0, 4], NONE])


@pytest.mark.parametrize(
    ("places", "num_gaps"),
    [([0, 40_000], 2), ([30_000, 31_000], 2), ([10_000, 60_000], 3), ([49_990, 79_990], 2), ([5_000, None], 2)],
    ids=["beginning", "near", "apart", "end", "one"],
)
def test_long_context_is_shown_around_its_spans(places: list[int | None], num_gaps: int) -> None:
    context = "".join(f"{number:09d} " for number in range(8_000))
    spans = [NONE if place is None else [place, place + 10] for place in places]
    text, moved = excerpt(context, spans)
    assert len(text) < MAX_CONTEXT
    assert text.count(GAP) == num_gaps
    for before, after in zip(spans, moved, strict=True):
        assert context[slice(*before)] == text[slice(*after)]
        assert (before == NONE) == (after == NONE)
    assert all(piece in context for piece in text.split(GAP))


def test_span_within_a_longer_one_cuts_nothing_off_the_longer_one() -> None:
    context = "".join(f"{number:09d} " for number in range(8_000))
    outer, inner = [10_000, 30_000], [11_000, 11_010]
    for spans in ([outer, inner], [inner, outer]):
        text, moved = excerpt(context, spans)
        assert [text[slice(*span)] for span in moved] == [context[slice(*span)] for span in spans]
        assert text.count(GAP) == 2


def test_long_context_without_spans_is_shown_from_its_beginning() -> None:
    text, spans = excerpt("word " * 9_000, [NONE, NONE])
    assert text == "word " * 400 + GAP
    assert spans == [NONE, NONE]


def test_spans_of_the_page_are_those_of_what_is_shown() -> None:
    context = "\U0001f600 many words " * 3000 + "Rome or Paris" + " and more" * 3000
    place = context.index("Rome")
    spans = np.array([[place, place + 4]]), np.array([[place + 8, place + 13]])
    table = table_of([0], contexts=[context], reference_span=spans[0], predicted_span=spans[1])
    data = Page(render(table, {}, title="t", num_resamples=100)).data("error-data")
    [shown], [text] = data["examples"], data["contexts"]
    assert len(text) < MAX_CONTEXT
    assert text[slice(*shown["reference_span"])] == "Rome"
    assert text[slice(*shown["predicted_span"])] == "Paris"
