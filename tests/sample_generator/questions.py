"""Questions of the sample: ask a passage for its values, for its entities, and for what it does not say."""

import random
from collections.abc import Sequence
from typing import Any

from sample_generator.passages import Passage, names
from sample_generator.wording import Mention, short_answer

NUM_IMPOSSIBLE = (0, 1, 1, 1)
"""Unanswerable questions of a passage, one of these at random: 0.75 of five questions are 15%."""
INVERSE_SHARE = 0.25
NEVER_IMPOSSIBLE = "neighbours"
"""Borders hold both ways, so a passage may answer this from the other country's sentence."""

Qa = dict[str, Any]


def ask(passage: Passage, split: str, rng: random.Random, num_questions: int) -> list[Qa]:
    """Up to `num_questions` different questions on a passage, without ids."""
    facts = [
        (value, _name_beside(value, sentence))
        for sentence in passage.sentences
        for value in sentence
        if value.relation != "name"
    ]
    rng.shuffle(facts)
    qas = [_unanswerable(text) for text in _impossible(passage, split, rng)[: rng.choice(NUM_IMPOSSIBLE)]]
    qas += [_answerable(passage, *fact, split, rng) for fact in facts[: num_questions - len(qas)]]
    rng.shuffle(qas)
    return qas[:num_questions]


def _name_beside(value: Mention, sentence: Sequence[Mention]) -> Mention | None:
    return next((m for m in sentence if m.relation == "name" and m.entity == value.entity), None)


def _answerable(passage: Passage, value: Mention, name: Mention | None, split: str, rng: random.Random) -> Qa:
    wording = passage.kind.relations[value.relation]
    owners = {entity["name"]: entity for entity in passage.entities}
    full_value = owners[value.entity][value.relation]
    is_unique = sum(entity.get(value.relation) == full_value for entity in passage.entities) == 1
    if name and wording.inverse and is_unique and rng.random() < INVERSE_SHARE:
        question = rng.choice(wording.inverse).format(v=full_value)
        return _qa(question, [_answer(passage.context, name.start, name.end)])
    answers = [_answer(passage.context, value.start, value.end)]
    # As in SQuAD, training examples have one answer and only held-out ones list what else is right.
    short = short_answer(answers[0]["text"], wording.alternative) if split == "validation" else None
    if short:
        start = passage.context.index(short, value.start, value.end)
        answers.append(_answer(passage.context, start, start + len(short)))
    return _qa(rng.choice(wording.questions).format(s=value.entity), answers)


def _impossible(passage: Passage, split: str, rng: random.Random) -> list[str]:
    """Questions without an answer: facts left out, and relations of the passage for entities that it lacks."""
    relations = {m.relation for sentence in passage.sentences for m in sentence} - {"name"}
    absent = [entity for entity in passage.kind.entities[split] if not names(passage.context, entity)]
    strangers = [(entity, relation) for entity in absent for relation in sorted(relations) if relation in entity]
    left_out = list(passage.unstated)
    rng.shuffle(left_out)
    candidates = left_out + rng.sample(strangers, min(3, len(strangers)))
    return [
        rng.choice(passage.kind.relations[relation].questions).format(s=entity["name"])
        for entity, relation in candidates
        if relation != NEVER_IMPOSSIBLE
    ]


def _answer(context: str, start: int, end: int) -> dict[str, Any]:
    return {"text": context[start:end], "answer_start": start}


def _qa(question: str, answers: list[dict[str, Any]]) -> Qa:
    return {"question": question, "answers": answers, "is_impossible": False}


def _unanswerable(question: str) -> Qa:
    return {"question": question, "answers": [], "is_impossible": True}
