"""Read an HTML page: its elements with their attributes and texts, as a browser's parser would find them."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "input", "br", "img", "link"}


@dataclass
class Element:
    """One element."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    """All text in it, that of its children included."""
    children: list["Element"] = field(default_factory=list)


class Page(HTMLParser):
    """All elements of a page, in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {[item.tag for item in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        if self._open:
            self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes {self._open[-1].tag}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Elements of a tag; `class_` stands for class."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [item for item in self.elements if item.tag == tag and wanted.items() <= item.attributes.items()]

    def by_id(self, key: str) -> Element:
        """The one element of an id."""
        [found] = [item for item in self.elements if item.attributes.get("id") == key]
        return found

    def data(self, key: str) -> Any:
        """What a block of JSON holds."""
        return json.loads(self.by_id(key).text)
