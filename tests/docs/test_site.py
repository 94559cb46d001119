"""The site: it builds without a warning, its links and README.md's lead somewhere, and it asks nobody for anything."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import nbformat
import pytest
import yaml
from documents import ROOT, links, pages
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


class Page(HTMLParser):
    """Anchors of a page, where its links lead, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.anchors |= {value for value in (named.get("id"), named.get("name")) if value}
        if tag == "a" and named.get("href"):
            self.links.append(str(named["href"]))
        elif tag in ("img", "script", "link", "iframe", "source"):
            self.loads += [value for value in (named.get("src"), named.get("href")) if value]


def build(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Run MkDocs, strictly, on the mkdocs.yml in `folder`."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    target = tmp_path_factory.mktemp("site")
    built = build(ROOT, target)
    assert built.returncode == 0, built.stdout + built.stderr
    return target


@cache
def page(path: Path) -> Page:
    return Page(path)


def html_pages(site: Path) -> list[Path]:
    # What is missing is shown under any address, so its links begin at the site's root.
    return [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]


def test_every_link_and_picture_of_the_site_leads_somewhere(site: Path) -> None:
    lost = []
    for path in html_pages(site):
        for link in page(path).links + page(path).loads:
            if urlsplit(link).scheme:
                continue
            address, anchor = urldefrag(link)
            target = (path.parent / unquote(address)).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            known = target.is_file() and (not anchor or target.suffix != ".html" or anchor in page(target).anchors)
            lost += [] if known or anchor == "__top" else [f"{path.relative_to(site)}: {link}"]
    assert not lost


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for path in html_pages(site):
        assert not [item for item in page(path).loads if urlsplit(item).netloc]
        # The theme would fetch its renderer.
        assert 'class="mermaid"' not in path.read_text(encoding="utf-8")


def test_every_link_of_the_readme_leads_somewhere(site: Path) -> None:
    for link in links("README.md"):
        address, anchor = urldefrag(link)
        if urlsplit(address).scheme:
            continue
        assert (ROOT / address).is_file(), link
        if anchor:
            assert anchor in page(site / Path(address).relative_to("docs").with_suffix(".html")).anchors, link


def test_readme_is_read_to_its_end_and_begins_with_a_report_of_ones_own_data() -> None:
    lines = pages()["README.md"].splitlines()
    assert len(lines) <= 150
    first_screen = lines[:20]
    start = next(number for number, line in enumerate(first_screen) if "git clone" in line)
    assert "report.html" in first_screen[start + 2], "three commands"


def imported(node: ast.AST, *, typed: bool) -> set[str]:
    """Modules that a source file names in its imports, from wherever in it; with `typed`, also in those for types."""
    if isinstance(node, ast.Import):
        return {item.name for item in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module, *(f"{node.module}.{item.name}" for item in node.names)}
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typed:
        return set()
    return {name for child in ast.iter_child_nodes(node) for name in imported(child, typed=typed)}


def test_picture_of_the_layers_shows_every_room_and_exactly_the_imports_in_the_source_files(site: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = settings["contracts"]
    layers = next(item["layers"] for item in contracts if item["type"] == "layers")
    rooms = [room.strip() for layer in layers for room in layer.split("|")]
    libraries = {name for item in contracts if item["type"] == "forbidden" for name in item["forbidden_modules"]}
    typed = not settings.get("exclude_type_checking_imports", False)
    expected = set()
    for room in rooms:
        place = ROOT.joinpath(*room.split("."))
        sources = [*place.rglob("*.py"), *([place.with_suffix(".py")] if place.with_suffix(".py").is_file() else [])]
        trees = [ast.parse(source.read_text(encoding="utf-8")) for source in sources]
        names = {name for tree in trees for name in imported(tree, typed=typed)}
        for other in {*rooms, *libraries} - {room}:
            if any(name == other or name.startswith(f"{other}.") for name in names):
                expected.add((room.removeprefix("qa_ray."), other.removeprefix("qa_ray.")))
    text = (site / "design.html").read_text(encoding="utf-8")
    assert set(re.findall(r"<title>(\w+) imports (\w+), in \d+ module", text)) == expected
    assert all(f">{room.removeprefix('qa_ray.')}</text>" in text for room in rooms)


def test_every_room_has_a_page_of_its_docstrings(site: Path) -> None:
    path = site / "rooms" / "storage.html"
    assert {"qa_ray.storage.run_folder.RunFolder", "qa_ray.storage.checkpoint_store"} <= page(path).anchors
    assert "A run's folder and its checkpoints" in path.read_text(encoding="utf-8")


def test_notebook_becomes_a_page_with_its_outputs_and_pictures(tmp_path: Path) -> None:
    cell = new_code_cell("print(6 * 7)")
    cell.outputs = [
        new_output("stream", name="stdout", text="42\n"),
        new_output("display_data", {"image/png": PIXEL}),
    ]
    (tmp_path / "docs").mkdir()
    nbformat.write(new_notebook(cells=[new_markdown_cell("# By hand"), cell]), tmp_path / "docs" / "steps.ipynb")
    (tmp_path / "docs" / "index.md").write_text("# Start\n\n[Steps](steps.md#by-hand)\n")
    config = {
        "site_name": "notebook",
        "use_directory_urls": False,
        "hooks": [str(ROOT / "docs" / "hooks" / "notebooks.py")],
        "validation": {"links": {"anchors": "warn"}},
        "nav": ["index.md", "steps.md"],
    }
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config))
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode == 0, built.stdout + built.stderr
    text = (tmp_path / "site" / "steps.html").read_text(encoding="utf-8")
    assert "print(" in text
    assert "42" in text
    [picture] = [item for item in Page(tmp_path / "site" / "steps.html").loads if "steps-files" in item]
    assert (tmp_path / "site" / picture).read_bytes().startswith(b"\x89PNG")
