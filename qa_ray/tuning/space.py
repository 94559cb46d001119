"""The search space: which fields of a configuration are searched, and in which of Optuna's distributions.

It is read from text, which is checked against the fields' types:

    optim.learning_rate=loguniform(1e-5, 5e-4)
    window.stride=choice(32, 64, 128)
    batch.size=randint(8, 32)

The same as a TOML or JSON file, one table for each section; there a list of values is a choice.
"""

import contextlib
import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from enum import EnumType
from pathlib import Path
from typing import Any, TypeAlias

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from qa_ray.config.fields import flatten
from qa_ray.config.files import ENDINGS, read_table
from qa_ray.config.fine_tuning import Config
from qa_ray.errors import ConfigError

Domain: TypeAlias = FloatDistribution | IntDistribution | CategoricalDistribution
"""Where a field's values are drawn from; both ends of a range are included."""
Space = dict[str, Domain]
"""Domains by the dotted names of fields."""
Value = int | float | str | bool | None
"""A value of a configuration's field."""
Parameters = dict[str, Value]
"""One point of a space: values by the dotted names of fields."""

FORMS = "loguniform(LOW, HIGH), uniform(LOW, HIGH), randint(LOW, HIGH), lograndint(LOW, HIGH), choice(VALUE, ...)"
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)
_RANGES = {
    "uniform": (FloatDistribution, False),
    "loguniform": (FloatDistribution, True),
    "randint": (IntDistribution, False),
    "lograndint": (IntDistribution, True),
}
_KINDS = {type(None): "None", bool: "true or false", int: "whole numbers", float: "numbers", str: "text"}
_WORDS: dict[type, dict[str, Value]] = {type(None): {"none": None}, bool: {"true": True, "false": False}}
# Sections that change no score, and fields without which scores cannot be compared.
_FIXED_SECTIONS = ("cluster", "run", "checkpoint", "tracking", "publish")
_FIXED = (
    *(f"data.{name}" for name in ("validation", "validation_share", "max_validation_examples")),
    *(f"data.{name}" for name in ("on_bad_row", "impossible_answers")),
    "evaluate.best_by",
    "evaluate.language",
    "train.log_every",
)
# Each of their values means other tokens: all of them are made before the first trial.
_TOKENS = ("data.", "model.name", "model.revision", "model.tokenizer")


def read_space(items: Iterable[str]) -> Space:
    """Read FIELD=DOMAIN items and names of files; a later item replaces an earlier one of the same field.

    Raises:
        ConfigError: an item cannot be understood, or does not fit its field; the message says what is allowed.
    """
    texts: dict[str, Any] = {}
    for item in items:
        field, sign, text = item.partition("=")
        if sign:
            texts[field.strip()] = text
        elif item.endswith(ENDINGS):
            texts |= flatten(read_table(Path(item), f"--space {item}"))
        else:
            raise ConfigError(f"--space {item}: write FIELD=DOMAIN, with one of {FORMS}, or name a .toml or .json file")
    if not texts:
        raise ConfigError("--space names no field: write for example optim.learning_rate=loguniform(1e-5, 5e-4)")
    return {field: _read_domain(field, text) for field, text in texts.items()}


def written(domain: Domain) -> str:
    """The text that a domain is read from."""
    if isinstance(domain, CategoricalDistribution):
        return f"choice({', '.join(map(str, domain.choices))})"
    kind, digits = ("uniform", "g") if isinstance(domain, FloatDistribution) else ("randint", "d")
    return f"{'log' * domain.log}{kind}({domain.low:{digits}}, {domain.high:{digits}})"


def apply(config: Config, parameters: Mapping[str, Value]) -> Config:
    """The configuration with some fields replaced.

    Raises:
        ConfigError: the configuration does not allow the values.
    """
    replaced: Config = _replaced(config, parameters)
    return replaced


def _replaced(section: Any, parameters: Mapping[str, Value]) -> Any:
    # All fields of a section at once: one value may be allowed only together with another.
    changes: dict[str, Any] = {}
    for name in dict.fromkeys(field.partition(".")[0] for field in parameters):
        inner = {field.partition(".")[2]: value for field, value in parameters.items() if field.startswith(f"{name}.")}
        changes[name] = _replaced(getattr(section, name), inner) if inner else parameters[name]
    return dataclasses.replace(section, **changes)


def defaults(config: Config, space: Space) -> Parameters:
    """What the configuration itself has in the fields of a space."""
    values = dict(flatten(config))
    return {field: values[field] for field in space}


def changes_tokens(field: str) -> bool:
    """Whether the tokenised data may depend on a field."""
    return field.startswith(_TOKENS)


def _read_domain(field: str, text: Any) -> Domain:
    """Read one domain: text, or a list of values."""
    kinds = _kinds_of(field)
    try:
        domain = _choice(map(str, text), kinds) if isinstance(text, list) else _parse(str(text), kinds)
        if changes_tokens(field) and not isinstance(domain, CategoricalDistribution):
            raise ValueError("what changes the tokens is searched by choice(VALUE, ...) only")
    except ValueError as error:
        raise ConfigError(f"--space {field}={text}: {error}") from error
    return domain


def _parse(text: str, kinds: list[Any]) -> Domain:
    match = _CALL.fullmatch(text)
    arguments = [item.strip() for item in match[2].split(",")] if match and match[2].strip() else []
    if match and match[1] == "choice":
        return _choice(arguments, kinds)
    if match is None or match[1] not in _RANGES:
        raise ValueError(f"write one of {FORMS}")
    kind, log = _RANGES[match[1]]
    number, wanted = (float, "a number") if kind is FloatDistribution else (int, "a whole number")
    if number not in kinds:
        raise ValueError(f"the field is not {wanted}: it takes {_described(kinds)}")
    if len(arguments) != 2:
        raise ValueError(f"a range has two ends, not {len(arguments)}")
    low, high = (_value(argument, [number]) for argument in arguments)
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("the ends must be finite numbers")
    if low >= high:
        raise ValueError(f"the lower end {low:g} must be below the upper end {high:g}")
    if log and low <= 0:
        raise ValueError(f"the lower end {low:g} of a logarithmic range must be above 0")
    return kind(low, high, log=log)


def _choice(texts: Iterable[str], kinds: list[Any]) -> Domain:
    values = [_value(text, kinds) for text in texts]
    if not values:
        raise ValueError("choice() needs at least one value")
    if len(set(values)) < len(values):
        raise ValueError("choice() has a value twice")
    return CategoricalDistribution(values)


def _value(text: str, kinds: list[Any]) -> Any:
    """The value that a text stands for, of the first type that has one."""
    text = text.strip("\"'")
    for kind in kinds:
        with contextlib.suppress(ValueError, KeyError):
            return _WORDS[kind][text.lower()] if kind in _WORDS else kind(text)
    raise ValueError(f"{text!r} does not fit: the field takes {_described(kinds)}")


def _kinds_of(field: str) -> list[Any]:
    """The types that a configuration's field allows, None first and text last.

    Raises:
        ConfigError: there is no such field, or it cannot be searched.
    """
    section = field.partition(".")[0]
    known = [name for name, _ in flatten(Config())]
    if field not in known:
        near = [name for name in known if name.partition(".")[0] == section] or sorted(known)
        raise ConfigError(f"--space {field}: there is no such field; known are {', '.join(near)}")
    if section in _FIXED_SECTIONS:
        raise ConfigError(f"--space {field}: it changes no score, and cannot be searched")
    if field == "model.trust_remote_code":
        raise ConfigError(
            f"--space {field}: a space cannot let a model's code run, only --{field.replace('_', '-')} can"
        )
    if field in _FIXED:
        raise ConfigError(f"--space {field}: scores could not be compared, it cannot be searched")
    hint: Any = functools.reduce(lambda owner, name: typing.get_type_hints(owner)[name], field.split("."), Config)
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    known_kinds = list(_KINDS)
    if not all(kind in _KINDS or isinstance(kind, EnumType) for kind in kinds):
        raise ConfigError(f"--space {field}: a field of this type cannot be searched")
    return sorted(kinds, key=lambda kind: known_kinds.index(kind) if kind in _KINDS else len(_KINDS))


def _described(kinds: list[Any]) -> str:
    return " or ".join(_KINDS.get(kind) or " or ".join(kind) for kind in kinds)
