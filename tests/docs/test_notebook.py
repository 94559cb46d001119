"""docs/from-the-notebook.ipynb: it runs from top to bottom, and is stored as it was executed."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from documents import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "from-the-notebook.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"


def cells(kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == kind]


def test_it_is_stored_as_it_was_executed_without_an_error_and_small() -> None:
    code = cells("code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert NOTEBOOK.stat().st_size < 100_000


def test_table_names_a_place_for_every_step() -> None:
    table, *_ = cells("markdown")
    headings = [re.findall(r"^## (.+)$", cell.source, re.MULTILINE) for cell in cells("markdown")]
    anchors = {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for found in headings for name in found}
    assert set(re.findall(r"\(#([\w-]+)\)", table.source)) == anchors


@pytest.mark.long
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("PATH", f"{ROOT}/.venv/bin", prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # No cell may take for ever, but none is measured.
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    assert any(data.get("text/html", "").startswith("<iframe srcdoc=") for data in shown)
    assert any(WIDGET in data and data["text/plain"].startswith("train:") for data in shown)
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "there is no token for the Hub" in said
    assert 'train = "train.parquet"' in said
