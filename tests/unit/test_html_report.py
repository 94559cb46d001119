"""The HTML report's structure: everything is there, nothing is fetched, and no text of the data becomes HTML."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluations import Asked, evaluation_of, table_of
from pages import Page

from qa_ray.errors import StorageError
from qa_ray.evaluation.comparison import compare
from qa_ray.evaluation.questions import tabulate
from qa_ray.html_report import MAX_ERRORS, render, write_report

EVIL = "</script><script>document.title = 'broken'</script> & <b>bold</b> \u2028 \U0001f600 end"
ASKED = [
    Asked("Which town?", "Ada went to Rome by train.", "Rome", "Rome"),
    Asked(f"Who {EVIL}?", f"{EVIL} came Bo.", "Bo", EVIL),
    Asked("When did Cem eat?", "Cem went to Lima.", None, "Lima", null_odds=4),
    Asked("Why did Dora go?", "Dora went to Bern late.", None, "late"),
]
HISTORY = [
    {"time": 1.0, "phase": "train", "step": 1, "train_loss": 2.5},
    {"time": 2.0, "phase": "evaluate", "step": 2, "eval_loss": 2.0, "eval_f1": 10.0, "eval_exact_match": 5.0},
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[str, Page]]:
    def write(asked: list[Asked], *, no_answer: bool = True, **arguments: object) -> tuple[str, Page]:
        path = tmp_path / "report.html"
        write_report(path, *evaluation_of(asked, no_answer=no_answer), **{"title": "A report"} | arguments)
        text = path.read_text(encoding="utf-8")
        return text, Page(text)

    return write


def headings(page: Page) -> list[str]:
    return [item.text for item in page.all("h2")]


def test_page_has_every_section_and_the_links_lead_there(write) -> None:
    _, page = write(ASKED, history=HISTORY)
    assert headings(page) == [
        "Scores",
        "Learning curves",
        "Scores by kind of question",
        "Calibration",
        "No answer",
        "Worst errors",
    ]
    links = [item.attributes["href"] for item in page.all("a")]
    assert all(page.by_id(link.removeprefix("#")) for link in links)
    assert [item.text for item in page.all("h3")] == [
        "Loss",
        "Validation scores",
        "Question word",
        "Answer length",
        "Context length",
        "Answer position",
        "Windows",
        "Reliability",
        "Threshold",
        "Precision and recall",
    ]


def test_every_figure_has_its_data_a_label_and_most_have_their_numbers(write) -> None:
    _, page = write(ASKED, history=HISTORY)
    plots = page.all("div", class_="plot")
    figures = page.data("figure-data")
    assert len(plots) == len(figures) == 10
    assert all(plot.attributes["role"] == "img" and plot.attributes["aria-label"] for plot in plots)
    assert all(figure["data"] for figure in figures)
    assert len(page.all("summary")) == 6


def test_scores_are_shown_with_their_intervals(write) -> None:
    _, page = write(ASKED)
    [table] = [item for item in page.all("table") if "HasAns_f1" in item.text]
    rows = [[cell.text for cell in row.children] for row in table.children[-1].children]
    exact = next(row for row in rows if row[0] == "exact_match")
    assert exact[1] == "50.00"
    low, high = (float(word) for word in exact[2].strip("[]").split(", "))
    assert 0 <= low < 50 < high <= 100
    assert "<b>50.0</b>" in write(ASKED)[0]


def test_numbers_of_questions_stand_beside_each_slice(write) -> None:
    _, page = write(ASKED)
    [words] = [figure for figure in page.data("figure-data") if "which  (1)" in str(figure["data"][0].get("y"))]
    assert words["data"][0]["y"] == ["who  (1)", "when  (1)", "why  (1)", "which  (1)"]


def test_nothing_is_fetched(write) -> None:
    _, page = write(ASKED, history=HISTORY)
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert "//" not in (element.attributes.get(name) or ""), element
    assert not page.all("link")
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"].startswith("default-src 'none';")
    [style] = page.all("style")
    assert "url(" not in style.text
    assert "@import" not in style.text


def test_plotly_is_there_once(write) -> None:
    text, page = write(ASKED)
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    kinds = [item.attributes.get("type") for item in page.all("script")]
    assert kinds == ["application/json", "application/json", None, None]


def test_no_text_becomes_html(write) -> None:
    text, page = write(ASKED, title=EVIL, facts={"Model": EVIL})
    assert "<script>document.title" not in text
    assert len(page.all("script")) == 4
    assert page.all("title")[0].text == EVIL
    assert page.all("h1")[0].text == EVIL
    assert EVIL in page.all("dd")[0].text
    data = page.data("error-data")
    shown = next(item for item in data["examples"] if item["id"] == "q1")
    assert shown["question"] == f"Who {EVIL}?"
    context = data["contexts"][shown["context"]]
    assert context == ASKED[1].context
    assert context[slice(*shown["reference_span"])] == "Bo"
    assert context[slice(*shown["predicted_span"])] == shown["prediction"] == EVIL


def test_flips_are_escaped_and_counted() -> None:
    evaluation, corpus, windows = evaluation_of(ASKED)
    table = tabulate(evaluation, corpus, windows)
    changed = [dataclasses.replace(ASKED[0], best="Ada"), dataclasses.replace(ASKED[1], best="Bo"), *ASKED[2:]]
    other = tabulate(*evaluation_of(changed))
    page = Page(render(table, evaluation.metrics, title="t", comparison=compare(table, other, EVIL, num_resamples=50)))
    assert "Comparison" in headings(page)
    section = page.by_id("comparison")
    assert "2 questions are answered exactly by one model only: 1 won, 1 lost." in section.text
    assert f"Against {EVIL}," in section.text
    rows = [[cell.text for cell in row.children] for row in page.all("tr")]
    assert ["won", "Which town?", "Rome", "Rome", "Ada"] in rows
    assert ["lost", f"Who {EVIL}?", "Bo", EVIL, "Bo"] in rows
    assert len(page.all("script")) == 4


def test_errors_are_the_worst_ones_first_with_their_slices(write) -> None:
    _, page = write(ASKED)
    examples = page.data("error-data")["examples"]
    assert {item["id"] for item in examples} == {"q1", "q3"}
    assert [item["f1"] for item in examples] == sorted(item["f1"] for item in examples)
    options = [item.attributes["value"] for item in page.all("option")]
    assert options[0] == ""
    assert all(name in options for item in examples for name in item["slices"])


def test_controls_have_labels(write) -> None:
    _, page = write(ASKED)
    labelled = [child for label in page.all("label") for child in label.children]
    for control in (*page.all("select"), *page.all("input")):
        assert control in labelled
    assert all(button.attributes["aria-label"] for button in page.all("button"))
    assert page.by_id("place").attributes["aria-live"] == "polite"
    assert page.all("html")[0].attributes["lang"] == "en"


def test_model_that_never_says_no_answer_has_no_such_section(write) -> None:
    _, page = write(ASKED[:2], no_answer=False)
    assert headings(page) == ["Scores", "Scores by kind of question", "Calibration", "Worst errors"]


def test_model_without_errors_has_nothing_to_browse(write) -> None:
    _, page = write(ASKED[:1], no_answer=False)
    assert "Every question is answered exactly." in page.by_id("errors").text
    assert not [item for item in page.elements if item.attributes.get("id") == "error-data"]


def test_page_of_two_thousand_questions_is_of_a_sensible_size() -> None:
    number = 2000
    contexts = [f"{row} " + "many words of a long context " * 30 for row in range(number)]
    odds = np.random.default_rng(0).normal(size=number)
    table = table_of(np.arange(number) % 2, contexts=contexts, null_odds=odds, threshold=0.0)
    metrics = {"best_f1_thresh": 0.0, "best_f1": 50.0}
    page = render(table, metrics, title="t", num_resamples=50)
    assert len(page.encode()) < 6_000_000
    assert len(Page(page).data("error-data")["examples"]) == MAX_ERRORS


def test_report_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none/report.html cannot be written: No such file"):
        write_report(tmp_path / "none" / "report.html", *evaluation_of(ASKED[:1]), title="t")
