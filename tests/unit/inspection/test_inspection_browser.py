"""The inspection's page in a real browser: every figure is drawn, and texts stay texts."""

import shutil
import subprocess
from pathlib import Path

import pytest
from inspections import configured, inspected, inspection, passage
from pages import Page

from qa_ray.inspection.page import render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium (on Debian: apt-get install chromium)")


def test_figures_are_drawn_and_texts_stay_texts(bert: Path, tmp_path: Path) -> None:
    config = configured(bert)
    found = inspected(config, [passage("the town", (EVIL, ["town"]), (EVIL, []))])
    file = tmp_path / "data.html"
    file.write_text(render(inspection(config, found)), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(BROWSER), *flags, "--virtual-time-budget=10000", "--dump-dom", file.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    page = Page(shown[: shown.index('<script type="application/json"')] + "</body></html>")
    assert page.all("title")[0].text == "Data of a run"
    assert not page.all("img")
    assert EVIL in page.by_id("look").text
    drawn = [plot for plot in page.all("div") if "js-plotly-plot" in (plot.attributes.get("class") or "")]
    assert len(drawn) == 3
