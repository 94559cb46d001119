"""Numbers that JSON has no word for are null, and all else is as json.dumps writes it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strict import parse

from qa_ray.storage.strict_json import each_to_json, to_json

CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


def same(found: Any, given: Any) -> bool:
    """Whether `found` is what strict JSON makes of `given`."""
    if isinstance(given, float) and not math.isfinite(given):
        return found is None
    if isinstance(given, list | tuple):
        return len(found) == len(given) and all(map(same, found, given))
    if isinstance(given, dict):
        return found.keys() == given.keys() and all(same(found[key], given[key]) for key in given)
    return found == given and type(found) is type(given)


@given(CONTENT)
def test_whatever_is_written_is_strict_json(content: Any) -> None:
    assert same(parse(to_json(content)), content)


@pytest.mark.parametrize("layout", [{}, {"indent": 1, "ensure_ascii": False}], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_layout_is_that_of_json_dumps(layout: dict[str, Any], bad: float) -> None:
    content = {"text": "\u6771\u4eac", "numbers": [1, 0.1, None, True], 2: {}}
    assert to_json(content, **layout) == json.dumps(content, **layout)
    assert to_json(content | {"bad": bad}, **layout) == json.dumps(content | {"bad": None}, **layout)


@given(st.lists(st.floats()) | st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_each_value_is_written_as_by_itself(values: list[float] | list[str]) -> None:
    assert each_to_json(values) == [to_json(value, ensure_ascii=False) for value in values]


def test_line_breaks_and_separators_stay_within_their_text() -> None:
    values = ["one\ntwo", "\u2028\u2029\x85\r", '", "', "\\n", ""]
    assert list(map(json.loads, each_to_json(values))) == values
