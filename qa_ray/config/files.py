"""Configurations as files: TOML or JSON read over a recipe, TOML written, and the JSON schema of both."""

import dataclasses
import difflib
import json
import secrets
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from qa_ray.config.fields import flatten
from qa_ray.config.fine_tuning import Config
from qa_ray.config.recipes import RECIPES
from qa_ray.errors import ConfigError
from qa_ray.locations import without_secrets

C = TypeVar("C", bound=Config)
T = TypeVar("T")
Table = dict[str, Any]

ENDINGS = (".toml", ".json")
RECIPE = "recipe"
"""Key of a file that names the recipe, or another file, to start from."""
_NONE = "None"
"""Stands for no value in TOML, which has no null; the command line takes the same word."""
_SCHEMA_VERSION = "https://json-schema.org/draft/2020-12/schema"


def find_recipe(name: str) -> Callable[[], Config]:
    """A recipe by its name.

    Raises:
        ConfigError: there is none; the message says which name is meant, maybe.
    """
    if name in RECIPES:
        return RECIPES[name]
    close = difflib.get_close_matches(name, RECIPES, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(
        f"there is no recipe {name!r}: {meant}Name one of {', '.join(RECIPES)}, or a file that ends with .toml or .json"
    )


def read_config(place: str | Path, extend: Callable[[Config], C]) -> C:
    """Read a TOML file, or a JSON file such as the config.json of a run, over the recipe that it names.

    Args:
        place: the file.
        extend: makes the configuration that is wanted of one without knobs of its own.

    Raises:
        ConfigError: the file cannot be read, has an unknown field, or a value that cannot work.
    """
    return _over(_load(Path(place), ()), str(place), extend)


def open_recipe(source: str, extend: Callable[[Config], C]) -> tuple[C, str]:
    """The configuration that the name of a recipe or of a file stands for, and what its runs are named after.

    A file cannot let a model's code run: it may have come with the model. Whoever gives the command can.

    Raises:
        ConfigError: there is no such recipe, or the file cannot be used.
    """
    if source.endswith(ENDINGS):
        config = read_config(source, extend)
        model = dataclasses.replace(config.model, trust_remote_code=False)
        return dataclasses.replace(config, model=model), Path(source).stem
    return extend(find_recipe(source)()), source


def new_name(stem: str) -> str:
    """A name for a run that nobody has named; no other run has it, though it were begun in the same second."""
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def read_table(path: Path, source: str) -> Table:
    """Read a TOML or JSON file.

    Raises:
        ConfigError: it cannot be read, or holds no names; the message begins with `source`.
    """
    try:
        content = path.read_text("utf-8")
        table = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{source} cannot be read: {reason}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{source} must hold sections such as optim, by name")
    return table


def override(config: C, sections: Mapping[str, Any], source: str) -> C:
    """A configuration with some fields replaced, given as nested mappings.

    Raises:
        ConfigError: a field is unknown, or its value cannot work; the message begins with `source`.
    """
    base: Table = dataclasses.asdict(config)
    return _checked(type(config), _merged(base, _plain(sections)), base, source)


def build(options: type[T], values: Mapping[str, Any], source: str) -> T:
    """Options of a job, made of plain values.

    Raises:
        ConfigError: a field is unknown, or its value cannot work; the message begins with `source`.
    """
    known = {item.name: None for item in dataclasses.fields(options)}  # type: ignore[arg-type]
    return _checked(options, _plain(values), known, source)


def to_toml(config: Config) -> str:
    """A configuration as TOML that `read_config` takes: every field that has a value, or whose default has one."""
    return "\n".join(_lines(config, "")).lstrip()


def json_schema(kind: type[Config]) -> Table:
    """The JSON schema of such files, for editors."""
    schema = TypeAdapter(_model(kind, use_attribute_docstrings=True)).json_schema()
    definitions = schema["$defs"]
    root: Table = definitions.pop(kind.__name__)
    for definition in [root, *definitions.values()]:
        # Any field may be left out: the recipe has it.
        definition.pop("required", None)
        for field in definition.get("properties", {}).values():
            field.pop("title", None)
            kinds = field.get("anyOf", [])
            field.update({"anyOf": [*kinds, {"const": _NONE}]} if {"type": "null"} in kinds else {})
    about = f"Recipe to start from ({', '.join(RECIPES)}), or another file; without one, the defaults below."
    root["properties"] = {RECIPE: {"type": "string", "description": about}, **root["properties"]}
    return {"$schema": _SCHEMA_VERSION, "title": "qa_ray", **root, "$defs": definitions}


def _checked(kind: type[T], content: Table, known: Table, source: str) -> T:
    try:
        checked = _model(kind).model_validate_json(json.dumps({"config": content}, default=str))
    except ValidationError as error:
        raise ConfigError(_explained(error, known, source)) from None
    return cast(T, checked.config)  # type: ignore[attr-defined]


def _model(kind: Any, use_attribute_docstrings: bool = False) -> type[BaseModel]:
    """What checks a configuration's types: strictly, as they stand in JSON.

    Docstrings are read out of the source's syntax tree, which fails now and then where two threads do so at once
    (Python before 3.11.8, https://github.com/python/cpython/issues/106905): only the schema needs them.
    """
    settings = ConfigDict(use_attribute_docstrings=use_attribute_docstrings, extra="forbid", strict=True)
    return create_model("Configured", __config__=settings, config=(kind, ...))


def _over(table: Table, source: str, extend: Callable[[Config], C]) -> C:
    try:
        recipe = find_recipe(table.pop(RECIPE))() if RECIPE in table else Config()
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    base = {item.name for item in dataclasses.fields(Config)}
    extended = extend(recipe)
    own = {item.name for item in dataclasses.fields(extended)} - base
    # What a sweep searches by default depends on the run that is varied.
    config = override(recipe, {name: value for name, value in table.items() if name not in own}, source)
    return override(extend(config), {name: value for name, value in table.items() if name in own}, source)


def _load(path: Path, outer: tuple[Path, ...]) -> Table:
    """The content of a file, over that of the file that it starts from."""
    table = read_table(path, str(path))
    start = table.get(RECIPE, "")
    if not isinstance(start, str):
        raise ConfigError(f"{path}: recipe={json.dumps(start)} must be the name of a recipe, or of a file")
    if not start.endswith(ENDINGS):
        return table
    other, chain = path.parent / start, (*outer, path.resolve())
    if other.resolve() in chain:
        raise ConfigError(f"{path}: recipe={start!r} leads back to this file: name a recipe")
    del table[RECIPE]
    return _merged(_load(other, chain), table)


def _merged(base: Table, changes: Mapping[str, Any]) -> Table:
    merged = dict(base)
    for name, value in changes.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return None if value == _NONE else value


def _lines(section: Any, prefix: str) -> list[str]:
    """A table's own fields, and then the tables in it."""
    items = [(item, getattr(section, item.name)) for item in dataclasses.fields(section)]
    lines = []
    for item, value in items:
        if not dataclasses.is_dataclass(value) and (value, item.default) != (None, None):
            # JSON's texts, numbers and lists are TOML's.
            text = json.dumps(_NONE if value is None else value, ensure_ascii=False)
            lines.append(f"{item.name} = {text}")
    if prefix and lines:
        lines = ["", f"[{prefix[:-1]}]", *lines]
    for item, value in items:
        if dataclasses.is_dataclass(value):
            lines += _lines(value, f"{prefix}{item.name}.")
    return lines


def _explained(error: ValidationError, base: Table, source: str) -> str:
    """What is wrong with each field, in words."""
    fields = dict(flatten(base))
    reasons: dict[str, list[str]] = {}
    for found in error.errors():
        path = ".".join(str(part) for part in found["loc"][1:])
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            return f"{source}: {cause}"
        # Each kind of value that a field takes has a complaint of its own, below the field's name.
        field = next((name for name in fields if f"{path}.".startswith(f"{name}.")), path)
        if found["type"] == "unexpected_keyword_argument":
            reasons[f"{path} is no field"] = [_nearest(path, fields)]
        else:
            value = without_secrets(json.dumps(found["input"], default=str))
            text = found["msg"].removeprefix("Input ")
            reasons.setdefault(f"{field}={value[:60]}", []).append(text)
    return f"{source}: " + "; ".join(f"{name}: {', or '.join(texts)}" for name, texts in reasons.items())


def _nearest(path: str, fields: Mapping[str, Any]) -> str:
    """The field that is meant, most likely: one with a name like it, here or in another section."""
    section, _, name = path.rpartition(".")
    beside = [other for other in fields if other.rpartition(".")[0] == section]
    by_name = {other.rpartition(".")[2]: other for other in [*fields, *beside]}
    sections = sorted({other.partition(".")[0] for other in fields})
    close = difflib.get_close_matches(name, [*by_name, *sections], n=1)
    if close:
        return f"did you mean {by_name.get(close[0], close[0])}?"
    return f"there are {', '.join(beside or sections)}"
