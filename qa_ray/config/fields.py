"""The fields of a configuration, one by one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from qa_ray.errors import require
from qa_ray.locations import SECRET_RULE, holds_secret


def refuse_secrets(section: Any, option: Callable[[str], str]) -> None:
    """Raise ConfigError where a text of a configuration holds a secret: all of it is recorded.

    Args:
        section: the configuration.
        option: how a field is written by whoever sets it.
    """
    for name, value in flatten(section):
        for text in value if isinstance(value, tuple) else (value,):
            require(not isinstance(text, str) or not holds_secret(text), f"{option(name)} {SECRET_RULE}")


def flatten(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every field below a configuration, or below what JSON made of one, as (dotted name, value)."""
    named = (
        section
        if isinstance(section, Mapping)
        else {item.name: getattr(section, item.name) for item in fields(section)}
    )
    for name, value in named.items():
        if is_dataclass(value) or isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
