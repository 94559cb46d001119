"""README.md and the pages of docs/: the blocks of code in them, the commands, and the links."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Not what goes on below a list's item, which no page indents by four.
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n)(?:(?: {4}.*)?\n)*", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_BETWEEN = {"&&", "||", ";", "|"}


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    """Path of the page, from the repository's root."""
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command of a shell, as a page shows it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"

    @property
    def job(self) -> tuple[str, tuple[str, ...]] | None:
        """Name and arguments of the job of ours that it runs, here or on a cluster; the name may be empty."""
        words = self.words
        if words[:3] == ("ray", "job", "submit"):
            words = words[words.index("--") + 1 :]
        if words[0] == "qa-ray":
            return "".join(words[1:2]), words[2:]
        if words[0] == "python" and words[1].startswith("jobs/"):
            return Path(words[1]).stem, words[2:]
        return None


@cache
def pages() -> dict[str, str]:
    """Text of every page by its path."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


@cache
def blocks(language: str) -> list[Block]:
    """All blocks of a language; those that are indented are a shell's."""
    found = []
    for page, text in pages().items():
        found += [Block(page, match[1], match[2]) for match in _FENCED.finditer(text)]
        rest = _FENCED.sub("", text)
        found += [Block(page, "bash", textwrap.dedent(part).strip() + "\n") for part in _INDENTED.findall(rest)]
    return [block for block in found if block.language == language]


@cache
def commands() -> list[Command]:
    """All commands, each by itself where one line has several."""
    return [
        Command(block.page, words)
        for block in blocks("bash")
        for line in block.text.replace("\\\n", " ").splitlines()
        for words in _split(line)
    ]


def _split(line: str) -> list[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if word in _BETWEEN:
            parts.append([])
        elif parts[-1] or not re.fullmatch(r"[A-Z_]+=.*", word):  # variables before the command
            parts[-1].append(word)
    # Without the file that takes what a command shows.
    return [tuple(part[: part.index(">")] if ">" in part else part) for part in parts if part]


def jobs(name: str) -> list[Command]:
    """The commands that run a job of ours, in the order of the pages, README.md first."""
    return [command for command in commands() if command.job is not None and command.job[0] == name]


def links(page: str) -> list[str]:
    """Where the links and pictures of a page lead."""
    return _LINK.findall(_FENCED.sub("", pages()[page]))


def files() -> dict[str, str]:
    """Text of the TOML files that pages show with their name in the first line."""
    named = [(re.match(r"# (\S+\.toml)\n", block.text), block.text) for block in blocks("toml")]
    return {match[1]: text for match, text in named if match}
