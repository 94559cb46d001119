"""What an inspection leaves: a table on the terminal, and the same in one page and one JSON file."""

import textwrap
from pathlib import Path

from qa_ray.config.policies import BadRows
from qa_ray.data.validation import describe, write_problems
from qa_ray.inspection.job import Inspection
from qa_ray.inspection.page import render
from qa_ray.inspection.split import TRAIN, VALIDATION, InspectedSplit, figures
from qa_ray.inspection.tables import SETTINGS_ABOUT, Rows, look_at, overview, settings
from qa_ray.storage.run_folder import guarded
from qa_ray.storage.strict_json import to_json

PAGE, FIGURES = "data.html", "data.json"
_WIDTH = 120
_NAMED = 3
"""Records that the terminal names of each kind; the page shows more, the JSON file has all."""


def save(inspection: Inspection) -> None:
    """Write the page, the figures and the rows that cannot be used, in place of those of an earlier inspection.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder = Path(inspection.config.out)
    with guarded(f"--out={folder}", "written"):
        (folder / PAGE).write_text(render(inspection), "utf-8")
        (folder / FIGURES).write_text(to_json(as_json(inspection), indent=1, ensure_ascii=False), "utf-8")
        for name in (TRAIN, VALIDATION):
            (folder / _bad_rows(name)).unlink(missing_ok=True)
        for split in inspection.splits:
            if split.problems:
                write_problems(split.problems, folder / _bad_rows(split.name))


def _bad_rows(split: str) -> str:
    return f"bad_rows_{split}.jsonl"


def as_json(inspection: Inspection) -> dict[str, object]:
    """All figures, and every row to look at."""
    config = inspection.config
    splits = {}
    for split in inspection.splits:
        ids, corpus = split.corpus.ids(), split.corpus
        splits[split.name] = figures(split, config) | {
            "look_at": {
                finding.key: [
                    {"id": ids[question], "record": corpus.record(question)} for question in finding.questions.tolist()
                ]
                for finding in inspection.findings[split.name]
            }
        }
    return {
        "model": config.model.name,
        "max_length": config.window.max_length,
        "stride": config.window.stride,
        "splits": splits,
        "settings": [
            {
                "max_length": setting.window.max_length,
                "stride": setting.window.stride,
                "windows": setting.windows,
                "answers_whole": setting.whole,
                **setting.epoch,
            }
            for setting in inspection.settings
        ],
        "refusals": list(inspection.refusals),
    }


def summary(inspection: Inspection) -> str:
    """The tables for the terminal, the rows to look at, and where the page lies."""
    lines: list[str] = []
    if inspection.splits:
        lines += ["", *_aligned(overview(inspection)), "", *_aligned(settings(inspection))]
        lines += ["", *textwrap.wrap(SETTINGS_ABOUT, _WIDTH)]
    named = [line for split in inspection.splits for line in _named(inspection, split)]
    if named:
        lines += ["", "to look at", *named]
    return "\n".join([*lines, "", f"page  {Path(inspection.config.out) / PAGE}"])


def _named(inspection: Inspection, split: InspectedSplit) -> list[str]:
    """Each kind of row to look at, with the first of them."""
    lines = []
    # Otherwise they are what training refuses, and told as that.
    if split.problems and inspection.config.data.on_bad_row is BadRows.SKIP:
        lines += [f"  {split.name}: {describe(split.problems, _NAMED)}".replace("\n", "\n  ")]
    for finding in look_at(inspection, split):
        lines.append(f"  {split.name}: {len(finding.questions):,} x {finding.heading}")
        for question in finding.questions[:_NAMED].tolist():
            line = f"    {split.corpus.record(question)}: {finding.note(question)}".removesuffix(": ")
            lines.append(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}...")
    return lines


def _aligned(rows: Rows) -> list[str]:
    """A table of text: names on the left, numbers flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip() for first, *rest in rows]
