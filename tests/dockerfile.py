"""The Dockerfile, instruction by instruction, and what .dockerignore lets the builder see."""

import re
from pathlib import Path
from typing import NamedTuple

from documents import ROOT


class Instruction(NamedTuple):
    """One line of the Dockerfile, continued lines joined."""

    name: str
    text: str


def instructions() -> list[Instruction]:
    """All of it, in its order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def seen_by_the_builder() -> set[str]:
    """Paths at the top that .dockerignore leaves; it must begin with what leaves out everything."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return {line.removeprefix("!/") for line in lines if line.startswith("!")}


def copies() -> list[tuple[list[str], str]]:
    """Sources and target of each COPY."""
    words = [instruction.text.split() for instruction in instructions() if instruction.name == "COPY"]
    return [(sources, target) for *sources, target in words]


def path_in(root: Path, place: str, target: str) -> Path:
    """Where a path of the image lies in a folder that stands for its root."""
    return root / (Path(place) / target).relative_to("/")
