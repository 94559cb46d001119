"""Python's text of dicts and lists, as pandas and datasets write them into CSV: read as a literal, never evaluated."""

import ast
import re
from collections.abc import Iterator

_MOST_CHARACTERS = 1 << 20
_DEEPEST = 16
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
    |(?P<word>[A-Za-z_][\w.]*)
    |(?P<mark>[\[\](){},:=])
    )\s*""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"None": None, "True": True, "False": False, "nan": float("nan")}
# numpy's array([...], dtype=object), and its numbers and texts as numpy 2 writes them.
_CALLS = re.compile(r"(?:(?:np|numpy)\.)?(?:array|(?:int|uint|float)\d+|str_|bool_?)")
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def parse_literal(text: str) -> object:
    """Return the value that Python's text of texts, numbers, lists, tuples and dicts stands for.

    Tuples and numpy's arrays become lists.

    Raises:
        ValueError: it is anything else, or longer or deeper than such data are.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"longer than {_MOST_CHARACTERS} characters")
    parser = _Parser(text)
    value = parser.value(_DEEPEST)
    if parser.token is not None:
        raise ValueError(f"unexpected {parser.token!r}")
    return value


class _Parser:
    """Reads a token ahead."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next()

    def _next(self) -> None:
        self.kind, self.token = next(self._tokens, (None, None))

    def value(self, depth: int) -> object:
        """The value that begins here; it may hold others down to `depth`."""
        if depth == 0:
            raise ValueError("too deep")
        kind, token = self.kind, self.token
        self._next()
        if token is None:
            raise ValueError("breaks off")
        if kind == "string":
            return _text(token)
        if kind == "number":
            return int(token) if token.lstrip("+-").isdecimal() else float(token)
        if kind == "word":
            return _WORDS[token] if token in _WORDS else self._call(token, depth)
        if token == "{":
            return dict(self._items(token, depth, with_keys=True))
        if token in _CLOSING:
            return [value for _, value in self._items(token, depth, with_keys=False)]
        raise ValueError(f"unexpected {token!r}")

    def _items(self, opening: str, depth: int, *, with_keys: bool) -> Iterator[tuple[str, object]]:
        while self.token != _CLOSING[opening]:
            item = self.value(depth - 1)
            key = ""
            if with_keys:
                if not isinstance(item, str):
                    raise ValueError(f"key {item!r} is no text")
                self._expect(":")
                key, item = item, self.value(depth - 1)
            yield key, item
            if self.token != _CLOSING[opening]:
                self._expect(",")
        self._next()

    def _call(self, name: str, depth: int) -> object:
        """What numpy writes as a call: its first argument; a dtype says nothing that the values do not."""
        if not _CALLS.fullmatch(name):
            raise ValueError(f"unexpected {name!r}")
        self._expect("(")
        value = self.value(depth - 1)
        if self.token == ",":
            for word in (",", "dtype", "="):
                self._expect(word)
            if self.kind not in ("word", "string"):
                raise ValueError("expected a dtype")
            self._next()
        self._expect(")")
        return value

    def _expect(self, token: str) -> None:
        if self.token != token:
            raise ValueError(f"expected {token!r}, found {self.token!r}")
        self._next()


def _text(token: str) -> object:
    try:
        return ast.literal_eval(token)  # a single text: what its escapes stand for
    except SyntaxError as error:
        raise ValueError(f"{token!r} is no text") from error


def _tokens(text: str) -> Iterator[tuple[str | None, str | None]]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"unexpected {text[place]!r} at {place}")
        yield match.lastgroup, match[match.lastgroup or 0]
        place = match.end()
