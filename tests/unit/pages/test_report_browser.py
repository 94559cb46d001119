"""The HTML report in a real browser: figures are drawn, errors are marked, filtered and turned by keys."""

import dataclasses
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from evaluations import Asked, evaluation_of
from pages import Page

from qa_ray.pages.report import render
from qa_ray.scores.question_table import tabulate

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium (on Debian: apt-get install chromium)")

EVIL = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">"
ASKED = [
    Asked("Where did Ada go?", "Ada \U0001f600\U0001f600 went to Rome by train.", "Rome by train", "to Rome"),
    Asked(f"Who {EVIL}?", f"{EVIL} came Bo.", "Bo", "came"),
    Asked("When did Cem eat?", "Cem went to Lima.", None, "Lima"),
    Asked("Where did Dora go?", "Dora went to Bern late.", "Bern", "late", null_odds=4),
    Asked("Where did Emil go?", "Emil went to Oslo.", "Oslo", "Oslo"),
    Asked("Who stayed?", f"{'Nobody of them stayed. ' * 150} Then Fay stayed at home.", "Fay", "home"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    evaluation, corpus, windows = evaluation_of(ASKED)
    path.write_text(render(tabulate(evaluation, corpus, windows), evaluation.metrics, title="A report"), "utf-8")
    return path


@pytest.fixture
def browse_file(tmp_path: Path) -> Callable[..., Page]:
    """Open a page at an address fragment, run a script in it, and return what the page has become."""

    def browse(file: Path, fragment: str, script: str = "") -> Page:
        page = tmp_path / "page.html"
        page.write_text(file.read_text("utf-8").replace("</body>", f"<script>{script}</script></body>"), "utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command = [str(BROWSER), *flags, "--virtual-time-budget=10000", "--dump-dom", f"{page.as_uri()}#{fragment}"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        # What Plotly draws need not be read.
        return Page(shown[: shown.index('<script type="application/json"')] + "</body></html>")

    return browse


@pytest.fixture
def browse(report: Path, browse_file: Callable[..., Page]) -> Callable[..., Page]:
    """Open the report at an address fragment, run a script in it, and return what the page has become."""
    return partial(browse_file, report)


def marks(page: Page) -> list[tuple[str | None, str]]:
    """Kind and text of the marked pieces, without the words for those who cannot see the colour."""
    return [
        (mark.attributes["class"], mark.text.partition(": ")[2].removesuffix("]"))
        for mark in page.all("mark")
        if mark.attributes.get("title")
    ]


def number_of(page: Page, question: str) -> int:
    """Where a question stands among the errors, from 1."""
    return [item["question"] for item in page.data("error-data")["examples"]].index(question) + 1


@pytest.fixture(scope="module")
def written(report: Path) -> Page:
    return Page(report.read_text("utf-8"))


def test_spans_are_marked_where_they_stand_even_behind_symbols_of_two_units(browse, written) -> None:
    place = number_of(written, ASKED[0].question)
    page = browse(f"example={place}")
    assert page.by_id("place").text == f"{place} of 5"
    article = page.by_id("example")
    assert article.children[0].text == "Where did Ada go?"
    assert marks(page) == [("predicted", "to "), ("both", "Rome"), ("reference", " by train")]


def test_texts_stay_texts_and_every_figure_is_drawn(browse, written) -> None:
    page = browse(f"example={number_of(written, ASKED[1].question)}")
    assert page.all("title")[0].text == "A report"
    article = page.by_id("example")
    assert article.children[0].text == f"Who {EVIL}?"
    assert not page.all("img")
    assert EVIL in article.children[-1].text
    plots = page.all("div", class_="plot js-plotly-plot") or page.all("div", class_="js-plotly-plot plot")
    assert len(plots) == len(written.all("div", class_="plot")) == 8


def test_errors_are_filtered_by_slice_and_text(browse) -> None:
    # Of the errors one more was asked otherwise, and one has another text.
    page = browse("slice=Question+word%3A+where&search=WENT")
    assert page.by_id("place").text == "1 of 2"
    assert page.by_id("example").children[0].text == "Where did Dora go?"
    assert "(no answer)" in page.by_id("example").text
    assert marks(page) == [("reference", "Bern")]


def test_filter_without_errors_says_so(browse) -> None:
    page = browse("search=nowhere")
    assert page.by_id("place").text == "no such error"
    assert "No error matches" in page.by_id("example").text
    assert all("disabled" in button.attributes for button in page.all("button"))


TURN = """
const key = (name, target) =>
  target.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
const [next, article, search] = ["next", "example", "search"].map((id) => document.getElementById(id));
const places = [];
const note = () => places.push(document.getElementById("place").textContent + location.hash);
next.click(); note();
key("ArrowRight", article); note();
key("ArrowRight", search); note();
key("ArrowLeft", article); note();
for (let time = 0; time < 4; time++) key("ArrowRight", article);
note();
search.value = "went"; search.dispatchEvent(new Event("input")); note();
document.body.dataset.places = places.join(" | ");
"""


def test_buttons_and_arrow_keys_turn_the_pages_and_the_address_follows(browse) -> None:
    page = browse("", TURN)
    assert page.all("body")[0].attributes["data-places"].split(" | ") == [
        "2 of 5#example=2",
        "3 of 5#example=3",
        "3 of 5#example=3",
        "2 of 5#example=2",
        "5 of 5#example=5",
        "1 of 3#example=1&search=went",
    ]


LOOK = """
const [context, mark] = [document.querySelector(".context"), document.querySelector(".context mark")];
const [box, place] = [context.getBoundingClientRect(), mark.getBoundingClientRect()];
document.body.dataset.seen = [context.scrollTop > 0, place.top >= box.top, place.bottom <= box.bottom].join(" ");
"""


def test_long_context_is_scrolled_to_its_spans(browse, written) -> None:
    page = browse(f"example={number_of(written, 'Who stayed?')}", LOOK)
    assert page.all("body")[0].attributes["data-seen"] == "true true true"


LAST = """
const next = document.getElementById("next");
next.focus();
while (!next.disabled) next.click();
document.body.dataset.focus = document.activeElement.id;
"""


def test_keys_work_on_when_the_last_error_is_reached_by_the_button(browse) -> None:
    assert browse("", LAST).all("body")[0].attributes["data-focus"] == "example"


def test_link_to_a_section_does_not_turn_the_page(browse) -> None:
    script = """
    document.getElementById("next").click();
    location.hash = "#scores";
    addEventListener("hashchange", () => {
      document.body.dataset.place = document.getElementById("place").textContent;
    });
    """
    assert browse("", script).all("body")[0].attributes["data-place"] == "2 of 5"


def test_error_whose_probability_is_not_known_is_shown_without_it(report, browse_file, tmp_path) -> None:
    evaluation, corpus, windows = evaluation_of(ASKED)
    table = dataclasses.replace(tabulate(evaluation, corpus, windows), probability=None, num_windows=None)
    path = tmp_path / "known.html"
    path.write_text(render(table, evaluation.metrics, title="Texts alone"), "utf-8")
    for file, is_shown in ((report, True), (path, False)):
        page = browse_file(file, "example=1")
        article = page.by_id("example").text
        assert ("Probability" in article) is is_shown
        assert "Predicted" in article
        assert page.by_id("place").text.startswith("1 of ")
