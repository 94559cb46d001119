"""The rooms as the site shows them, from the code: a picture of who imports whom, and a page of each room's docstrings.

MkDocs calls the functions that begin with `on_`. Layers and libraries are those of the contracts in pyproject.toml,
imports are those of the source files; nothing is imported to find them.
"""

import ast
import logging
import sys
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

import grimp
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.rooms")

MARK = "<!-- picture of the layers -->"
"""Stands where a page shows the picture."""
_CELL, _LEFT, _TOP, _GAP = 20, 108, 84, 16


class Rooms:
    """Layers of rooms, highest first, and what each of them imports."""

    def __init__(self, root: Path) -> None:
        settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
        contracts = settings["contracts"]
        [layers] = [item["layers"] for item in contracts if item["type"] == "layers"]
        self.root = root
        self.layers: list[list[str]] = [[name.strip() for name in layer.split("|")] for layer in layers]
        self.rooms = [room for layer in self.layers for room in layer]
        """Dotted names, highest first."""
        self.paged = [room for room in self.rooms if room.startswith("qa_ray.")]
        """Those that have a page."""
        forbidden = [item["forbidden_modules"] for item in contracts if item["type"] == "forbidden"]
        self.libraries = list(dict.fromkeys(name for names in forbidden for name in names))
        """What is kept out of some rooms."""
        # Where the source files are found.
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        self.graph = grimp.build_graph(
            *settings["root_packages"],
            include_external_packages=True,
            exclude_type_checking_imports=settings.get("exclude_type_checking_imports", False),
            cache_dir=None,
        )

    def outside(self) -> set[str]:
        """Modules at the top of the package that no layer names."""
        return self.graph.find_children("qa_ray") - set(self.rooms)

    def modules(self, room: str) -> set[str]:
        """A room's own modules."""
        return {room, *self.graph.find_descendants(room)}

    def imports(self, room: str, other: str) -> int:
        """Number of modules in `room` that import from `other`, a room or a library."""
        theirs = self.modules(other) if other in self.rooms else {other}
        return sum(bool(self.graph.find_modules_directly_imported_by(name) & theirs) for name in self.modules(room))

    def purpose(self, room: str) -> str:
        """First line of a room's docstring."""
        path = self.root.joinpath(*room.split("."))
        source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def short(room: str) -> str:
    """A room's name without the package's."""
    return room.removeprefix("qa_ray.")


def picture(rooms: Rooms) -> str:
    """SVG: a row for each room, highest first, with a dot under each room and each library that it imports."""
    columns = {name: _LEFT + place * _CELL for place, name in enumerate(rooms.rooms)}
    first = _LEFT + len(columns) * _CELL + _GAP
    columns |= {name: first + place * _CELL for place, name in enumerate(rooms.libraries)}
    width, height = max(columns.values()) + 3 * _CELL, _TOP + len(rooms.rooms) * _CELL + 4
    parts = [*_bands(rooms, width), *_headings(columns), _grid(columns, len(rooms.rooms))]
    for place, room in enumerate(rooms.rooms):
        top = _TOP + place * _CELL
        name = f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{short(room)}</text>'
        if room in rooms.paged:
            title = f"<title>{escape(rooms.purpose(room))}</title>"
            name = f'<a href="rooms/{short(room)}.html">{title}{name}</a>'
        parts.append(name)
        parts += [_cell(rooms, room, other, left, top) for other, left in columns.items()]
    label = "Rooms, highest first: each imports only those below it"
    svg = f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{label}">'
    return f'<div class="layers">{svg}{"".join(parts)}</svg></div>'


def _bands(rooms: Rooms, width: int) -> Iterator[str]:
    """Every second layer stands out, so that rooms beside each other are seen to be."""
    top = _TOP
    for place, layer in enumerate(rooms.layers):
        if place % 2 == 0:
            yield f'<rect class="band" x="0" y="{top}" width="{width}" height="{len(layer) * _CELL}"/>'
        top += len(layer) * _CELL


def _headings(columns: dict[str, int]) -> Iterator[str]:
    for name, left in columns.items():
        x, y = left + 14, _TOP - 6
        yield f'<text x="{x}" y="{y}" transform="rotate(-60 {x} {y})">{short(name)}</text>'


def _grid(columns: dict[str, int], number: int) -> str:
    """Lines between the columns and between the rows."""
    bottom, edges = _TOP + number * _CELL, {left + side for left in columns.values() for side in (0, _CELL)}
    upright = "".join(f"M{x} {_TOP}V{bottom}" for x in sorted(edges))
    level = "".join(f"M{_LEFT} {_TOP + row * _CELL}H{max(edges)}" for row in range(number + 1))
    return f'<path class="grid" d="{upright}{level}"/>'


def _cell(rooms: Rooms, room: str, other: str, left: int, top: int) -> str:
    if room == other:
        return f'<rect class="self" x="{left}" y="{top}" width="{_CELL}" height="{_CELL}"/>'
    number = rooms.imports(room, other)
    if not number:
        return ""
    kind = "room" if other in rooms.rooms else "library"
    title = f"{short(room)} imports {short(other)}, in {number} module{'s' * (number > 1)}"
    return f'<circle class="{kind}" cx="{left + 10}" cy="{top + 10}" r="5"><title>{title}</title></circle>'


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add a page for each room to the navigation."""
    rooms = Rooms(_root(config))
    for module in sorted(rooms.outside()):
        log.warning("%s is in no layer of the contract in pyproject.toml", module)
    config.nav = [*(config.nav or []), {"Rooms": [f"rooms/{short(room)}.md" for room in rooms.paged]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the page of each room."""
    for room in Rooms(_root(config)).paged:
        text = f"---\ntitle: {short(room)}\n---\n\n# {room}\n\n::: {room}\n"
        files.append(File.generated(config, f"rooms/{short(room)}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the picture where a page asks for it."""
    return markdown.replace(MARK, picture(Rooms(_root(config)))) if MARK in markdown else markdown
