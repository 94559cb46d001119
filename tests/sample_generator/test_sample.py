"""The embedded data set: what is shipped is what the generator makes, and it is sound."""

import json
import re
from collections import Counter
from functools import cache
from typing import Any

import pytest

from sample_generator.generate import PLANS, SAMPLE, build, serialise
from sample_generator.wording import KINDS, load_kind, short_answer

SPLITS = ("train", "validation")
WINDOW = 128


def paragraphs(split: str) -> list[dict[str, Any]]:
    squad = json.loads((SAMPLE / f"{split}.json").read_text(encoding="utf-8"))
    return [paragraph for article in squad["data"] for paragraph in article["paragraphs"]]


def examples(split: str) -> list[tuple[str, dict[str, Any]]]:
    return [(paragraph["context"], qa) for paragraph in paragraphs(split) for qa in paragraph["qas"]]


@cache
def words(text: str) -> str:
    """The words of a text without its marks, each between blanks."""
    return " ".join(["", *re.findall(r"\w+", text), ""])


def contains(text: str, name: str) -> bool:
    return words(name.removeprefix("the ")) in words(text)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.split)
def test_generator_reproduces_the_shipped_file_byte_for_byte(plan):
    assert serialise(build(plan)).encode() == (SAMPLE / f"{plan.split}.json").read_bytes()


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_stands_at_its_start(split):
    for context, qa in examples(split):
        for answer in qa["answers"]:
            assert answer["text"]
            assert context[answer["answer_start"] :].startswith(answer["text"]), qa["id"]


def test_ids_are_unique_over_both_splits():
    counts = Counter(qa["id"] for split in SPLITS for _, qa in examples(split))
    assert counts.most_common(1)[0][1] == 1


@pytest.mark.parametrize("split", SPLITS)
def test_no_context_and_no_question_of_a_context_is_repeated(split):
    contexts = [paragraph["context"] for paragraph in paragraphs(split)]
    assert len(set(contexts)) == len(contexts)
    asked = [(context, qa["question"]) for context, qa in examples(split)]
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize(("split", "num_questions"), [("train", 1300), ("validation", 300)])
def test_split_has_its_size_and_its_share_of_unanswerable_questions(split, num_questions):
    flags = [qa["is_impossible"] for _, qa in examples(split)]
    assert len(flags) == num_questions
    assert 0.12 <= sum(flags) / len(flags) <= 0.18


@pytest.mark.parametrize("split", SPLITS)
def test_a_question_is_impossible_exactly_if_it_has_no_answer(split):
    assert all(qa["is_impossible"] == (not qa["answers"]) for _, qa in examples(split))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("split", "other"), [SPLITS, SPLITS[::-1]], ids=SPLITS)
def test_no_entity_of_one_split_is_named_in_the_other(kind, split, other):
    text = " ".join(context + " " + qa["question"] for context, qa in examples(other))
    assert [entity["name"] for entity in load_kind(kind).entities[split] if contains(text, entity["name"])] == []


@pytest.mark.parametrize("split", SPLITS)
def test_every_entity_of_a_split_is_used(split):
    text = " ".join(context.lower() for context, _ in examples(split))
    names = [entity["name"] for kind in KINDS for entity in load_kind(kind).entities[split]]
    assert [name for name in names if not contains(text, name.lower())] == []


@pytest.mark.parametrize(("split", "num_long"), [("train", 5), ("validation", 3)])
def test_some_passages_are_longer_than_a_window(split, num_long):
    # A word or a mark is at least one token, so this count is a lower bound for every tokenizer.
    lengths = [len(re.findall(r"\w+|[^\w\s]", paragraph["context"])) for paragraph in paragraphs(split)]
    assert sum(length > WINDOW for length in lengths) >= num_long


def test_only_validation_questions_list_several_fair_answers():
    most = {split: max(len(qa["answers"]) for _, qa in examples(split)) for split in SPLITS}
    assert most == {"train": 1, "validation": 2}


def num_of_its_type(kind: str, split: str, context: str, answer: str) -> int:
    """How many values of the answer's relation the context holds, its own included."""
    entities = load_kind(kind).entities[split]
    relations = {key for entity in entities for key, value in entity.items() if value.lower().endswith(answer.lower())}
    values = {entity[key] for entity in entities for key in relations if key in entity}
    return sum(contains(context.lower(), value.lower()) for value in values)


@pytest.mark.parametrize("split", SPLITS)
def test_guessing_among_the_values_of_the_right_type_is_poor(split):
    scores = [
        1 / num_of_its_type(qa["id"].split("-")[1], split, context, qa["answers"][0]["text"]) if qa["answers"] else 0
        for context, qa in examples(split)
    ]
    assert sum(scores) / len(scores) < 0.5


@pytest.mark.parametrize(
    ("value", "rule", "expected"),
    [
        ("Miguel de Cervantes", "last_word", "de Cervantes"),
        ("Jane Austen", "last_word", "Austen"),
        ("Marie and Pierre Curie", "last_word", None),
        ("Hamburg", "before_comma", None),
        ("London, England", "before_comma", "London"),
        ("6,400 kilometres", "first_word", "6,400"),
        ("1774", "", None),
    ],
)
def test_short_answer_is_fair_by_itself(value, rule, expected):
    assert short_answer(value, rule) == expected
