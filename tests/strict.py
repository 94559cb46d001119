"""Read JSON as a strict reader does, which knows neither NaN nor Infinity."""

import json
from pathlib import Path
from typing import Any


def parse(text: str | bytes) -> Any:
    """What the text of one JSON value holds."""
    return json.loads(text, parse_constant=_refuse)


def read(path: Path) -> Any:
    """What a file holds: a list of its lines' values if it is JSONL."""
    text = path.read_text(encoding="utf-8")
    return [parse(line) for line in text.splitlines()] if path.suffix == ".jsonl" else parse(text)


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")
