"""JSON that every reader takes: it has no word for NaN and the infinities, so a number that is not finite is null."""

import json
import math
from typing import Any


def to_json(content: Any, **layout: Any) -> str:
    """The text of `content`, with null for every number that is not finite; `layout` is that of json.dumps."""
    try:
        return json.dumps(content, allow_nan=False, **layout)
    except ValueError:
        # Rare: all else need not be copied.
        return json.dumps(_finite(content), allow_nan=False, **layout)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
