"""Facts and sentence templates of the sample: read them from their files and turn a template into a sentence."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

FOLDER = Path(__file__).parent
KINDS = ("elements", "countries", "rivers", "moons", "novels")
ARTICLE = "the "

Entity = Mapping[str, str]
"""One row of facts.json: "name", and a value for each relation that is known."""


@dataclass(frozen=True, slots=True)
class Relation:
    """The ways to state and to ask for one relation; {s} and {t} are entities, {v} and {w} their values."""

    statements: Sequence[str]
    followups: Sequence[str]
    paired: Sequence[str]
    questions: Sequence[str]
    inverse: Sequence[str] = ()
    alternative: str = ""
    """Which part of a value is a fair answer by itself: "last_word", "first_word", "before_comma" or none."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entity: its facts in both splits and its wording."""

    name: str
    title: str
    relations: Mapping[str, Relation]
    joint: Sequence[str]
    fillers: Sequence[str]
    entities: Mapping[str, Sequence[Entity]]


@dataclass(frozen=True, slots=True)
class Mention:
    """Where a text names an entity (relation "name") or one of its values; characters, end exclusive."""

    entity: str
    relation: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A finished sentence and what it mentions."""

    text: str
    mentions: tuple[Mention, ...]


def load_kind(name: str) -> Kind:
    """Read the facts and the wording of one kind."""
    wording = json.loads((FOLDER / "templates.json").read_text(encoding="utf-8"))[name]
    entities = json.loads((FOLDER / "facts.json").read_text(encoding="utf-8"))[name]
    relations = {relation: Relation(**ways) for relation, ways in wording["relations"].items()}
    return Kind(name, wording["title"], relations, wording["joint"], wording["fillers"], entities)


def fields_of(template: str) -> set[str]:
    """Names of the placeholders of a template."""
    return {field for _, field, _, _ in Formatter().parse(template) if field}


def render(template: str, values: Mapping[str, tuple[Entity, str]]) -> Sentence:
    """Fill a template; `values` maps a placeholder to (entity, relation), relation "name" for the entity itself."""
    text, mentions = "", []
    for literal, field, _, _ in Formatter().parse(template):
        text += literal
        if field:
            entity, relation = values[field]
            value = entity[relation]
            # An article is never part of an answer, so that a reader has one convention to learn.
            start = len(text) + (len(ARTICLE) if value.startswith(ARTICLE) else 0)
            text += value
            mentions.append(Mention(entity["name"], relation, start, len(text)))
    return Sentence(text[0].upper() + text[1:], tuple(mentions))


def short_answer(value: str, rule: str) -> str | None:
    """The part of a value that is a fair answer by itself, such as the surname, or None."""
    words = value.split()
    if rule == "before_comma" and "," in value:
        return value.partition(",")[0]
    if rule == "first_word" and len(words) > 1:
        return words[0]
    if rule == "last_word" and len(words) > 1 and not {"and", "of"} & set(words):
        return " ".join(words[-2:]) if words[-2].islower() else words[-1]
    return None
