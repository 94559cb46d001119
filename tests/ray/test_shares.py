"""One file is enough: a share of its contexts is for validation, whatever the order of rows and files."""

import json
import logging
from pathlib import Path

import pytest
from families import FAMILIES

from qa_ray.config.data import DataConfig
from qa_ray.config.policies import BadRows
from qa_ray.errors import DataError
from qa_ray.runs.preparation import tokenize_data

pytestmark = pytest.mark.usefixtures("ray_cluster")

TOKENIZER = FAMILIES["bert"].tokenizer()


def rows(num_contexts: int, each: int = 3) -> list[dict[str, object]]:
    return [
        {"id": f"{number}-{turn}", "context": f"The number is {number}.", "question": "Which?",
         "answers": {"text": [str(number)], "answer_start": [14]}}
        for number in range(num_contexts)
        for turn in range(each)
    ]  # fmt: skip


def write(path: Path, lines: list[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, lines)))


def ids(place: Path, **options: object) -> tuple[list[str], list[str]]:
    splits = tokenize_data(DataConfig(train=str(place), validation="nowhere", **options), TOKENIZER)
    return splits.train.corpus().ids(), splits.validation.corpus().ids()


def test_share_is_by_context_and_the_same_in_any_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = rows(40)
    write(tmp_path / "whole.jsonl", lines)
    with caplog.at_level(logging.INFO, "qa_ray"):
        train, validation = ids(tmp_path / "whole.jsonl", validation_share=0.2)
    assert "32 contexts of data.train are for training, 8 for validation; data.validation is not read" in caplog.text
    assert f"{tmp_path / 'whole.jsonl'}: 1 file, JSON lines" in caplog.messages
    assert sorted(train + validation) == sorted(str(line["id"]) for line in lines)
    assert (len(train), len(validation)) == (96, 24)
    contexts = [{name.partition("-")[0] for name in split} for split in (train, validation)]
    assert not contexts[0] & contexts[1]
    for number in range(3):
        write(tmp_path / "cut" / f"{number}.jsonl", lines[::-1][number::3])
    others = ids(tmp_path / "cut", validation_share=0.2)
    assert [sorted(split) for split in others] == [sorted(train), sorted(validation)]
    few = ids(tmp_path / "whole.jsonl", validation_share=0.2, max_train_examples=50, max_validation_examples=10)
    assert few == (train[:50], validation[:10])


def test_digests_are_those_of_two_files(tmp_path: Path) -> None:
    write(tmp_path / "whole.jsonl", rows(10))
    shared = tokenize_data(DataConfig(train=str(tmp_path / "whole.jsonl"), validation_share=0.3), TOKENIZER)
    places = {}
    for name, split in (("train", shared.train), ("validation", shared.validation)):
        places[name] = str(tmp_path / f"{name}.jsonl")
        write(Path(places[name]), [line for line in rows(10) if line["id"] in split.corpus().ids()])
    apart = tokenize_data(DataConfig(**places), TOKENIZER)
    for name in ("train", "validation"):
        one, other = getattr(shared, name), getattr(apart, name)
        assert (one.digest, one.token_digest) == (other.digest, other.token_digest)


def test_bad_rows_are_those_of_training(tmp_path: Path) -> None:
    write(tmp_path / "f.jsonl", [*rows(4), {**rows(1)[0], "id": "bad", "question": ""}])
    with pytest.raises(DataError, match="question='': is empty"):
        ids(tmp_path / "f.jsonl", validation_share=0.5)
    data = DataConfig(train=str(tmp_path / "f.jsonl"), validation_share=0.5, on_bad_row=BadRows.SKIP)
    splits = tokenize_data(data, TOKENIZER)
    assert (len(splits.train.problems), len(splits.validation.problems)) == (1, 0)


def test_questions_about_one_context_cannot_be_shared(tmp_path: Path) -> None:
    write(tmp_path / "f.jsonl", rows(1))
    with pytest.raises(DataError, match=r"one context.*Name validation questions with data\.validation, without"):
        ids(tmp_path / "f.jsonl", validation_share=0.1)
