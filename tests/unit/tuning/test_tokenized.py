"""Points that cannot be tried are known: the widest stride is exactly the widest one that cuts no question."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from families import FAMILIES, MISMATCHED, Family
from passages import corpus_of
from small_runs import tiny_config

from qa_ray.config.fine_tuning import WindowConfig
from qa_ray.data.windows import widest_stride
from qa_ray.errors import ConfigError
from qa_ray.runs.preparation import Splits
from qa_ray.schema import Answer, Passage, Question
from qa_ray.tuning.tokenized import TokenizedData, check_questions

LONG = "the river flows through the old town and under the bridge " * 8
PASSAGES = [
    Passage(LONG, (Question("short", "who?", (Answer("the river", 0),), "1"),)),
    Passage(LONG, (Question("middle", "which river " * 5, (Answer("the river", 0),), "2"),)),
    # The longest question of all, whose context fits beside it.
    Passage("the town", (Question("whole", "which river " * 9, (Answer("the town", 0),), "3"),)),
]


@pytest.mark.parametrize("family", ["bert", "roberta", "xlnet"])
@pytest.mark.parametrize("max_length", [56, 64])
def test_widest_stride_leaves_room_beside_the_longest_question_whose_context_is_cut(
    family: str, max_length: int
) -> None:
    tokenizer = FAMILIES[family].tokenizer()
    template = FAMILIES[family].template()
    corpora = [corpus_of(PASSAGES[number : number + 1], tokenizer) for number in (1, 0, 2)]
    [longest] = corpora[0].question_lengths.tolist()
    assert longest < corpora[2].question_lengths.max()
    # A window begins at least an eighth of its length behind the one before.
    most = max_length - longest - template.num_special - max_length // 8
    check_questions(corpora, WindowConfig(max_length=max_length, stride=most), template)
    words = rf"window\.stride={most + 1} leaves no room .*\({longest} tokens\).*at most {most} can be shared"
    with pytest.raises(ConfigError, match=words):
        check_questions(corpora, WindowConfig(max_length=max_length, stride=most + 1), template)


@pytest.mark.parametrize("number", [1, 2, 6, 7, 8, 9, 20])
@pytest.mark.parametrize("max_length", [40, 64])
def test_widest_stride_is_right_for_short_questions_too(number: int, max_length: int) -> None:
    tokenizer, template = FAMILIES["bert"].tokenizer(), FAMILIES["bert"].template()
    corpora = [corpus_of([Passage(LONG * 2, (Question("one", "the " * number, (), "1"),))], tokenizer)]
    most = widest_stride(max_length, number, template)
    check_questions(corpora, WindowConfig(max_length=max_length, stride=most), template)
    with pytest.raises(ConfigError, match=f"window.stride={most + 1} "):
        check_questions(corpora, WindowConfig(max_length=max_length, stride=most + 1), template)


@pytest.mark.parametrize(
    ("family", "max_length", "words"),
    [
        (FAMILIES["bert"], 64, None),
        (FAMILIES["bert"], 513, "window.max_length=513 is beyond the 512 tokens"),
        (MISMATCHED, 64, "fails on a window of 64 tokens"),
    ],
    ids=["sound", "too long", "mismatched"],
)
def test_point_that_the_model_cannot_compute_is_not_tried(
    family: Family, max_length: int, words: str | None, tmp_path: Path
) -> None:
    family.save(tmp_path)
    # The part of a split that is asked for; a whole one stands in Ray's object store.
    split: Any = SimpleNamespace(corpus=lambda: corpus_of(PASSAGES[:1], family.tokenizer()))
    data = TokenizedData(Splits(split, split), family.tokenizer(), family.config())
    reason = data.why_infeasible(tiny_config(tmp_path), {"window.max_length": max_length})
    assert reason is None if words is None else words in str(reason)


def test_point_that_is_never_evaluated_within_its_epochs_is_not_tried(tmp_path: Path) -> None:
    bert = FAMILIES["bert"]
    bert.save(tmp_path)
    split: Any = SimpleNamespace(corpus=lambda: corpus_of(PASSAGES[:1], bert.tokenizer()))
    data = TokenizedData(Splits(split, split), bert.tokenizer(), bert.config())
    reason = data.why_infeasible(tiny_config(tmp_path, evaluate={"every_steps": 1000}), {"window.max_length": 64})
    assert str(reason).startswith("evaluate.every_steps=1000: the run has ")
