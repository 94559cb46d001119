"""The inspection's table, page and figures say the same, and no text of the data becomes HTML."""

import json
from pathlib import Path

import pytest
from inspections import configured, inspected, inspection, passage
from pages import Page

from qa_ray.config.policies import BadRows
from qa_ray.errors import StorageError
from qa_ray.inspection.job import Inspection
from qa_ray.inspection.page import MAX_ROWS, render
from qa_ray.inspection.report import save, summary
from qa_ray.schema import Problem

EVIL = "</script><script>document.title = 'broken'</script> & <b>bold</b>"
TOWNS = " ".join(["town"] * 60)
PROBLEMS = [Problem("row 7", "answers[0].answer_start", "3", f"answer is not there: there stands {EVIL}")]


@pytest.fixture
def found(bert: Path, tmp_path: Path) -> Inspection:
    config = configured(bert, tmp_path / "out", data={"on_bad_row": BadRows.SKIP})
    train = inspected(
        config,
        [passage(TOWNS, ("town ?", [TOWNS[: 5 * 31 - 1]]), (EVIL, ["town"])), passage("the town", ("old ?", []))],
        problems=PROBLEMS,
    )
    validation = inspected(config, [passage("the town", ("old ?", ["town"]))], "validation")
    return inspection(config, train, validation)


def cells(shown: str, name: str) -> list[str]:
    """What stands in the columns behind a row's name."""
    [line] = [line for line in shown.splitlines() if line.startswith(f"{name}  ")]
    return line.removeprefix(name).split("  ")[1:]


def test_terminal_shows_counts_findings_and_where_to_look(found: Inspection) -> None:
    shown = summary(found)
    lines = shown.splitlines()
    assert max(len(line) for line in lines if not line.startswith("    row 7: ")) <= 120
    rows = {name: [cell.strip() for cell in cells(shown, name) if cell.strip()] for name in (
        "questions", "  without an answer", "rows that cannot be used", "contexts", "answer whole in no window",
        "answer longer than 30 tokens", "on a context of train",
    )}  # fmt: skip
    assert rows == {
        "questions": ["3", "1"],
        "  without an answer": ["1 (33.3%)", "0"],
        "rows that cannot be used": ["1", "0"],
        "contexts": ["2", "1"],
        "answer whole in no window": ["1 (50.0%)", "0"],
        "answer longer than 30 tokens": ["1 (50.0%)", "0"],
        "on a context of train": ["1 (100.0%)"],
    }
    named = lines[lines.index("  train: 1 x answer whole in no window") + 1]
    assert named.startswith("    town town row 0: 31 tokens: 'town town ")
    assert lines[lines.index("  validation: 1 x on a context of train") + 1] == "    the town row 0"
    assert "    1 x answers.answer_start answer is not there" in lines
    assert "32, 8 <-" in shown
    assert lines[-1] == f"page  {found.config.out}/data.html"


def test_files_say_the_same_and_replace_those_of_an_earlier_inspection(found: Inspection) -> None:
    out = Path(found.config.out)
    out.mkdir()
    (out / "bad_rows_validation.jsonl").write_text("of another")
    save(found)
    assert {path.name for path in out.iterdir()} == {"data.html", "data.json", "bad_rows_train.jsonl"}
    assert json.loads((out / "bad_rows_train.jsonl").read_text())["record"] == "row 7"
    figures = json.loads((out / "data.json").read_text())
    train = figures["splits"]["train"]
    assert (train["questions"], train["rows_left_out"]) == (3, 1)
    assert train["look_at"]["whole_in_no_window"] == [{"id": "town town-0", "record": "town town row 0"}]
    assert figures["splits"]["validation"]["look_at"]["context_in_train"] == [
        {"id": "the town-0", "record": "the town row 0"}
    ]
    [own] = [one for one in figures["settings"] if (one["max_length"], one["stride"]) == (32, 8)]
    assert own["answers_whole"] == {"train": 1, "validation": 1}
    assert own["windows"]["train"] == train["windows"]
    assert figures["refusals"] == []


def test_page_holds_tables_figures_and_rows_and_no_text_becomes_html(found: Inspection) -> None:
    text = render(found)
    page = Page(text)
    assert [item.text for item in page.all("h2")] == ["Overview", "Lengths", "Other windows", "Rows to look at"]
    assert [item.text for item in page.all("h3")] == ["Questions", "Contexts", "Answers"]
    assert len(page.data("figure-data")) == 3
    assert "<script>document.title" not in text
    folded = {item.text.partition("(")[0].strip(): item for item in page.all("details")}
    assert EVIL in folded["train: rows that cannot be used"].text
    assert "31 tokens: 'town town" in folded["train: answer whole in no window"].text
    assert "raise window.stride" in folded["train: answer whole in no window"].text
    assert "validation: on a context of train" in folded
    assert "train: asked again" not in folded


def test_bars_are_shares_of_each_split(found: Inspection) -> None:
    questions, _, answers = Page(render(found)).data("figure-data")
    train, validation = questions["data"]
    assert (train["name"], validation["name"]) == ("train", "validation")
    assert sum(train["y"]) == pytest.approx(100)
    assert sum(validation["y"]) == pytest.approx(100)
    # One answer has one token, the other 31.
    assert [share for share in answers["data"][0]["y"] if share] == [50, 50]
    assert [shape["x0"] for shape in answers["layout"]["shapes"]] == [30.5]


def test_why_training_would_not_start_stands_first(found: Inspection) -> None:
    page = Page(render(inspection(found.config, refusals=[f"validation: no such file {EVIL}"])))
    assert [item.text for item in page.all("h2")] == ["Training would not start", "Rows to look at"]
    assert EVIL in page.by_id("refused").text


def test_page_shows_no_more_rows_than_can_be_looked_at(bert: Path) -> None:
    config = configured(bert)
    asked = [("old ?", [])] * (MAX_ROWS + 11)
    page = Page(render(inspection(config, inspected(config, [passage("the town", *asked)]))))
    [listed] = [item for item in page.all("details") if "asked again (210; the first 200 are here)" in item.text]
    assert len(listed.children[-1].children[0].children[-1].children) == MAX_ROWS


def test_folder_that_cannot_be_written_is_told(found: Inspection, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match=r"--out=\S+ cannot be written"):
        save(found)
