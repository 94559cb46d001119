"""The HTML report's structure: everything is there, nothing is fetched, and no text of the data becomes HTML."""

import dataclasses
import re

import numpy as np
import pytest
from evaluations import Asked, evaluation_of, table_of
from pages import Page

from qa_ray.pages.error_browser import MAX_ERRORS
from qa_ray.pages.report import MAX_FLIPS, render
from qa_ray.scores.intervals import compare
from qa_ray.scores.question_table import tabulate

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


def write(asked: list[Asked], *, no_answer: bool = True, **arguments: object) -> tuple[str, Page]:
    evaluation, corpus, windows = evaluation_of(asked, no_answer=no_answer)
    table = tabulate(evaluation, corpus, windows)
    text = render(table, evaluation.metrics, **{"title": "A report", "num_resamples": 100} | arguments)
    return text, Page(text)


def rendered(table, metrics: dict[str, float] | None = None, **arguments: object) -> tuple[str, Page]:
    text = render(table, metrics or {}, **{"title": "t", "num_resamples": 100} | arguments)
    return text, Page(text)


def headings(page: Page) -> list[str]:
    return [item.text for item in page.all("h2")]


def test_page_has_every_section_and_the_links_lead_there() -> None:
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


def test_every_figure_has_its_data_a_label_and_most_have_their_numbers() -> None:
    _, page = write(ASKED, history=HISTORY)
    plots = page.all("div", class_="plot")
    figures = page.data("figure-data")
    assert len(plots) == len(figures) == 10
    assert all(plot.attributes["role"] == "img" and plot.attributes["aria-label"] for plot in plots)
    assert all(figure["data"] for figure in figures)
    assert len(page.all("summary")) == 6


def test_scores_are_shown_with_their_intervals() -> None:
    _, page = write(ASKED)
    [table] = [item for item in page.all("table") if "HasAns_f1" in item.text]
    rows = [[cell.text for cell in row.children] for row in table.children[-1].children]
    exact = next(row for row in rows if row[0] == "exact_match")
    assert exact[1] == "50.00"
    low, high = (float(word) for word in exact[2].strip("[]").split(", "))
    assert 0 <= low < 50 < high <= 100
    assert "<b>50.0</b>" in write(ASKED)[0]


def test_numbers_of_questions_stand_beside_each_slice() -> None:
    _, page = write(ASKED)
    [words] = [figure for figure in page.data("figure-data") if "which  (1)" in str(figure["data"][0].get("y"))]
    assert words["data"][0]["y"] == ["who  (1)", "when  (1)", "why  (1)", "which  (1)"]


def test_nothing_is_fetched() -> None:
    _, page = write(ASKED, history=HISTORY)
    for element in page.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert "//" not in (element.attributes.get(name) or ""), element
    assert not page.all("link")
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    content = policy.attributes["content"]
    assert content.startswith("default-src 'none';")
    assert not re.search(r"https?:|\*|unsafe-eval", content)
    [style] = page.all("style")
    assert "url(" not in style.text
    assert "@import" not in style.text


def test_plotly_is_there_once() -> None:
    text, page = write(ASKED)
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    kinds = [item.attributes.get("type") for item in page.all("script")]
    assert kinds == ["application/json", "application/json", None, None]


def test_no_text_becomes_html() -> None:
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


def test_errors_are_the_worst_ones_first_with_their_slices() -> None:
    _, page = write(ASKED)
    examples = page.data("error-data")["examples"]
    assert {item["id"] for item in examples} == {"q1", "q3"}
    assert [item["f1"] for item in examples] == sorted(item["f1"] for item in examples)
    options = [item.attributes["value"] for item in page.all("option")]
    assert options[0] == ""
    assert all(name in options for item in examples for name in item["slices"])


def test_controls_have_labels() -> None:
    _, page = write(ASKED)
    labelled = [child for label in page.all("label") for child in label.children]
    for control in (*page.all("select"), *page.all("input")):
        assert control in labelled
    assert all(button.attributes["aria-label"] for button in page.all("button"))
    assert page.by_id("place").attributes["aria-live"] == "polite"
    assert page.all("html")[0].attributes["lang"] == "en"


def test_model_that_never_says_no_answer_has_no_such_section() -> None:
    _, page = write(ASKED[:2], no_answer=False)
    assert headings(page) == ["Scores", "Scores by kind of question", "Calibration", "Worst errors"]


def test_model_without_errors_has_nothing_to_browse() -> None:
    _, page = write(ASKED[:1], no_answer=False)
    assert "Every question is answered exactly." in page.by_id("errors").text
    assert not [item for item in page.elements if item.attributes.get("id") == "error-data"]


def test_page_stays_small_however_much_there_is_to_show() -> None:
    number = 2000
    contexts = [f"{row} " + "many words of a long context " * 2000 for row in range(number)]
    odds = np.random.default_rng(0).normal(size=number)
    columns = {"contexts": contexts, "null_odds": odds, "threshold": 0.0, "best_threshold": 0.5}
    table, other = (table_of((np.arange(number) + shift) % 2, **columns) for shift in (0, 1))
    history = [{"step": step, "train_loss": 1 / (step + 1)} for step in range(100_000)]
    comparison = compare(table, other, "other", num_resamples=50)
    text = render(table, {"best_f1": 50.0}, title="t", history=history, comparison=comparison, num_resamples=50)
    page = Page(text)
    assert len(text.encode()) - len(page.all("script")[-2].text.encode()) < 2_500_000
    assert len(page.data("error-data")["examples"]) == MAX_ERRORS
    assert len(page.all("table", class_="texts")[0].children[-1].children) == MAX_FLIPS
    assert "2,000 questions are answered exactly by one model only: 1,000 won, 1,000 lost, of which the first " in text
    steps = page.data("figure-data")[0]["data"][0]["x"]
    assert len(steps) == 1000
    assert (steps[0], steps[-1]) == (0, 99_999)


def test_step_that_was_recorded_again_after_a_restart_is_drawn_once() -> None:
    losses = [(1, 3.0), (2, 2.5), (3, 2.0), (2, 2.4), (3, 1.9)]
    _, page = write(ASKED, history=[{"step": step, "train_loss": loss} for step, loss in losses])
    [curve] = page.data("figure-data")[0]["data"]
    assert (curve["x"], curve["y"]) == ([1, 2, 3], [3.0, 2.4, 1.9])


def test_slices_of_few_questions_have_no_whiskers_and_no_brackets() -> None:
    texts = ["Who?"] * 12 + ["Why?"] * 2
    _, page = rendered(table_of([1, 0] * 7, texts=texts))
    figure = next(item for item in page.data("figure-data") if "who  (12)" in str(item["data"][0].get("y")))
    for bars in figure["data"]:
        for side in ("array", "arrayminus"):
            [there, missing] = bars["error_x"][side]
            assert there > 0
            assert missing == "none"
        assert [bool(brackets) for brackets in bars["customdata"]] == [True, False]
    [row] = [[cell.text for cell in row.children] for row in page.all("tr") if row.children[0].text == "why"]
    assert row == ["why", "2", "50.0 ", "50.0 "]


def test_best_threshold_for_the_questions_themselves_is_said_to_flatter() -> None:
    columns = {"threshold": 0.25, "best_threshold": 0.25}
    own = columns | {"best_threshold": -2.5}
    flattered, fair = table_of([1, 0], **columns), table_of([1, 0], **own)
    text, page = rendered(fair, {"best_f1": 61.5}, comparison=compare(fair, flattered, "other", num_resamples=50))
    assert "threshold 0.250. The best one for these questions is -2.500, with F1 61.50." in text
    assert "flatters" not in page.by_id("scores").text
    assert (
        "The other model's threshold is the best one for these very questions, which flatters"
        in page.by_id("comparison").text
    )
    _, page = rendered(flattered, comparison=compare(flattered, fair, "other", num_resamples=50))
    assert "It is the best one for these very questions, which flatters" in page.by_id("scores").text
    assert "flatters" not in page.by_id("comparison").text


def test_comparison_says_which_model_is_better_as_far_as_the_questions_tell() -> None:
    good, bad = table_of([1] * 40), table_of([1] * 20 + [0] * 20)
    _, page = rendered(good, comparison=compare(good, bad, "other", num_resamples=100))
    text = page.by_id("comparison").text
    assert "By F1, this model is better: the 95% interval of the difference lies above 0." in text
    [row] = [[cell.text for cell in row.children] for row in page.all("tr") if "+50.00" in row.text][:1]
    assert row[0] == "exact_match"
    assert row[1:3] == ["100.00 [100.0, 100.0]", f"50.00 {row[2].partition(' ')[2]}"]
    assert row[4] == "100.0%"


def test_lines_stand_at_the_chosen_and_the_best_threshold() -> None:
    odds = np.linspace(-3, 3, 20)
    table = table_of([1, 0] * 10, null_odds=odds, threshold=1.5, best_threshold=-0.5)
    _, page = rendered(table, {"best_f1": 50.0})
    [figure] = [item for item in page.data("figure-data") if "shapes" in item["layout"]]
    assert [(shape["name"], shape["x0"], shape["x1"]) for shape in figure["layout"]["shapes"]] == [
        ("chosen", 1.5, 1.5),
        ("best here", -0.5, -0.5),
    ]
    assert figure["data"][0]["x"] == pytest.approx(odds.tolist())
