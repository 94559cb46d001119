"""Questions in memory are those of a file: the same rows, the same fingerprint, and the same complaints."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from qa_ray.config.data import DataConfig
from qa_ray.data.memory import stored
from qa_ray.data.passages import read_split
from qa_ray.errors import DataError
from qa_ray.schema import Passage

ROWS = [
    {
        "id": f"q{number}",
        "context": f"Ada wrote note {number} in 1843.",
        "question": f"Who wrote note {number}?",
        "answers": {"text": ["Ada"], "answer_start": [0]} if number else {"text": [], "answer_start": []},
    }
    for number in range(3)
]
NESTED = {
    "data": [
        {
            "title": "notes",
            "paragraphs": [
                {
                    "context": row["context"],
                    "qas": [
                        {
                            "id": row["id"],
                            "question": row["question"],
                            "answers": [{"text": text, "answer_start": 0} for text in row["answers"]["text"]],
                            "is_impossible": not row["answers"]["text"],
                        }
                    ],
                }
                for row in ROWS
            ],
        }
    ]
}


def passages(location: str) -> list[Passage]:
    """The questions at a location, but for the record in which each was read."""
    found, problems = read_split(DataConfig(), location)
    assert not problems
    return [
        replace(passage, questions=tuple(replace(question, record="") for question in passage.questions))
        for passage in found
    ]


@pytest.mark.parametrize(
    "questions",
    [ROWS, tuple(ROWS), Dataset.from_list(ROWS), pd.DataFrame(ROWS), NESTED],
    ids=["list", "tuple", "datasets", "pandas", "nested"],
)
def test_questions_in_memory_are_those_of_a_file(questions: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    assert passages(stored(questions, str(tmp_path))) == passages(str(file))


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    answers = {"text": np.array(["Ada"], object), "answer_start": np.array([ROWS[0]["context"].index("Ada")])}
    rows = [{**ROWS[0], "answers": answers, "is_impossible": np.bool_(False)}]
    assert passages(stored(rows, str(tmp_path)))[0].questions[0].answers[0].text == "Ada"


def test_selection_and_order_of_a_dataset_are_kept(tmp_path: Path) -> None:
    chosen = Dataset.from_list(ROWS).select([2, 0])
    assert [passage.questions[0].id for passage in passages(stored(chosen, str(tmp_path)))] == ["q2", "q0"]


def test_index_of_a_frame_is_no_column(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS).iloc[1:].set_index(pd.Index([7, 9]))
    assert len(passages(stored(frame, str(tmp_path)))) == 2


def test_same_questions_are_one_file_which_is_not_written_again(tmp_path: Path) -> None:
    first = Path(stored(ROWS, str(tmp_path)))
    written = first.stat().st_mtime_ns
    assert Path(stored([dict(row) for row in ROWS], str(tmp_path))) == first
    assert first.stat().st_mtime_ns == written
    assert stored(ROWS[:2], str(tmp_path)) != str(first)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(
        [first.name, Path(stored(ROWS[:2], str(tmp_path))).name]
    )


@pytest.mark.parametrize("location", ["train.json", Path("train.json")])
def test_location_is_left_as_it_is(location: Any, tmp_path: Path) -> None:
    assert stored(location, str(tmp_path)) == "train.json"
    assert not list(tmp_path.iterdir())


def test_bad_row_in_memory_is_named_by_its_line(tmp_path: Path) -> None:
    wrong = [*ROWS[:1], {**ROWS[1], "answers": {"text": ["Ada"], "answer_start": ["zero"]}}]
    _, (problem,) = read_split(DataConfig(), stored(wrong, str(tmp_path)))
    assert "line 2" in problem.record


@pytest.mark.parametrize(
    ("questions", "words"),
    [
        (DatasetDict({"train": Dataset.from_list(ROWS)}), r"give one of them, such as dataset\['train'\]"),
        (3, "questions cannot be a int: give a path"),
        ([1, 2], "questions cannot be a list"),
        ([{"context": object()}], "cannot be written as rows: Object of type object is neither text nor a number"),
    ],
    ids=["several splits", "a number", "numbers", "an object in a row"],
)
def test_other_kinds_are_refused_in_words(questions: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        stored(questions, str(tmp_path))
