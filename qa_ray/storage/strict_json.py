"""JSON that every reader takes: it has no word for NaN and the infinities, so a number that is not finite is null."""

import json
import math
from collections.abc import Sequence
from typing import Any


def to_json(content: Any, **layout: Any) -> str:
    """The text of `content`, with null for every number that is not finite; `layout` is that of json.dumps."""
    try:
        return json.dumps(content, allow_nan=False, **layout)
    except ValueError:
        # Rare: all else need not be copied.
        return json.dumps(_finite(content), allow_nan=False, **layout)


def each_to_json(values: Sequence[str] | Sequence[float]) -> list[str]:
    """The text of each value by itself, as `to_json` has it."""
    # Much faster than one by one. No text holds a line break once it is JSON.
    joined = to_json(values, ensure_ascii=False, separators=("\n", ":"))
    return joined[1:-1].split("\n") if values else []


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
