"""Passages of the sample: choose entities and facts, word them, and remember where each value stands."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sample_generator.wording import Entity, Kind, Mention, Sentence, fields_of, render

Fact = tuple[Entity, str]

SHORT_SIZES = ((1, 3), (2, 2), (2, 3), (3, 2))
"""Entities and relations of a short passage. From one entity a model learns first what a question asks for, and from
several then of whom."""

BLOCK_SHARE = 0.9
"""Share of passages that treat one entity after the other; the rest mix their sentences."""
JOINT_SHARE = 0.6
PAIRED_SHARE = 0.5
FOLLOWUP_SHARE = 0.3
FILLER_SHARE = 0.25
"""Share of short passages with a sentence that says nothing of their entities."""
UNSTATED_SHARE = 0.1
"""Share of known facts that a passage leaves out, so that it can be asked for what it does not say."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A context with its entities, the facts it leaves out and, per sentence, what is mentioned where."""

    kind: Kind
    context: str
    entities: Sequence[Entity]
    unstated: Sequence[Fact]
    sentences: Sequence[Sequence[Mention]]


def names(text: str, entity: Entity) -> bool:
    """Whether a text contains the entity's name as whole words, whatever the case and without its article."""
    bare = re.escape(entity["name"].removeprefix("the "))
    return re.search(rf"(?<!\w){bare}(?!\w)", text, re.IGNORECASE) is not None


def make_passage(kind: Kind, split: str, rng: random.Random, num_uses: Counter[str], is_long: bool) -> Passage:
    """Write one passage about one to three entities of a split, or six or seven if it is to be long.

    Entities that `num_uses` has counted least come first, and it counts those of which it states something.
    """
    num_entities, num_relations = (rng.randint(6, 7), 4) if is_long else rng.choice(SHORT_SIZES)
    shuffled = rng.sample(list(kind.entities[split]), len(kind.entities[split]))
    entities = sorted(shuffled, key=lambda entity: num_uses[entity["name"]])[:num_entities]
    relations = rng.sample(list(kind.relations), num_relations)
    stated, unstated = _choose_facts(entities, relations, rng)
    num_uses.update({entity["name"]: 1 for entity, _ in stated})
    write = _blocks if rng.random() < BLOCK_SHARE else _mixed
    sentences = write(kind, stated, rng)
    num_fillers = rng.randint(1, 2) if is_long else int(rng.random() < FILLER_SHARE)
    _insert_fillers(sentences, rng.sample(list(kind.fillers), num_fillers), rng)
    context, mentions = _join(sentences)
    return Passage(kind, context, entities, unstated, mentions)


def _choose_facts(
    entities: Sequence[Entity], relations: Sequence[str], rng: random.Random
) -> tuple[list[Fact], list[Fact]]:
    stated, unstated = [], []
    for entity in entities:
        known = [relation for relation in relations if relation in entity]
        # A value that names another entity of the passage (a neighbour, a tributary) would say something about it too.
        known = [r for r in known if not any(names(entity[r], other) for other in entities if other is not entity)]
        kept = [relation for relation in known if rng.random() >= UNSTATED_SHARE] or known[:1]
        stated += [(entity, relation) for relation in kept]
        unstated += [(entity, relation) for relation in known if relation not in kept]
    return stated, unstated


def _blocks(kind: Kind, facts: Sequence[Fact], rng: random.Random) -> list[Sentence]:
    """One entity after the other, later sentences partly without its name."""
    sentences = []
    for entity in _shuffled_entities(facts, rng):
        relations = [relation for owner, relation in facts if owner is entity]
        rng.shuffle(relations)
        is_first = True
        joint = _fitting_joint(kind, relations, rng)
        if joint:
            sentences.append(_render_joint(joint, entity))
            relations = [relation for relation in relations if relation not in fields_of(joint)]
            is_first = False
        for relation in relations:
            wording = kind.relations[relation]
            is_followup = not is_first and rng.random() < FOLLOWUP_SHARE
            template = rng.choice(wording.followups if is_followup else wording.statements)
            sentences.append(render(template, {"s": (entity, "name"), "v": (entity, relation)}))
            is_first = False
    return sentences


def _mixed(kind: Kind, facts: Sequence[Fact], rng: random.Random) -> list[Sentence]:
    """Sentences in random order, each with its entity's name, some about two entities."""
    sentences = []
    for relation, wording in kind.relations.items():
        owners = [entity for entity, stated in facts if stated == relation]
        rng.shuffle(owners)
        while owners:
            first = owners.pop()
            values = {"s": (first, "name"), "v": (first, relation)}
            template = rng.choice(wording.statements)
            if owners and rng.random() < PAIRED_SHARE:
                second = owners.pop()
                values |= {"t": (second, "name"), "w": (second, relation)}
                template = rng.choice(wording.paired)
            sentences.append(render(template, values))
    rng.shuffle(sentences)
    return sentences


def _shuffled_entities(facts: Sequence[Fact], rng: random.Random) -> list[Entity]:
    distinct = list({entity["name"]: entity for entity, _ in facts}.values())
    rng.shuffle(distinct)
    return distinct


def _fitting_joint(kind: Kind, relations: Sequence[str], rng: random.Random) -> str | None:
    fitting = [template for template in kind.joint if fields_of(template) - {"s"} <= set(relations)]
    return rng.choice(fitting) if fitting and rng.random() < JOINT_SHARE else None


def _render_joint(template: str, entity: Entity) -> Sentence:
    return render(template, {f: (entity, "name" if f == "s" else f) for f in fields_of(template)})


def _insert_fillers(sentences: list[Sentence], fillers: Sequence[str], rng: random.Random) -> None:
    for filler in fillers:
        # Never before a sentence without a name: its "it" belongs to the sentence before.
        places = [i for i, s in enumerate(sentences) if not s.mentions or any(m.relation == "name" for m in s.mentions)]
        sentences.insert(rng.choice([*places, len(sentences)]), Sentence(filler, ()))


def _join(sentences: Sequence[Sentence]) -> tuple[str, list[list[Mention]]]:
    """Put sentences into one text and shift their mentions to where they now stand."""
    context, shifted = "", []
    for sentence in sentences:
        offset = len(context) + bool(context)
        context = f"{context} {sentence.text}".strip()
        shifted.append([Mention(m.entity, m.relation, m.start + offset, m.end + offset) for m in sentence.mentions])
    return context, shifted
