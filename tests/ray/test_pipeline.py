"""The Ray Data graph of a split: order, problems, limits, and parallel tokenisation of one big file."""

import json
from pathlib import Path

import numpy as np
import pytest
from families import FAMILIES

from qa_ray.config.data import DataConfig
from qa_ray.config.policies import BadRows
from qa_ray.data.pipeline import tokenize_split
from qa_ray.errors import DataError

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def tokenizer() -> str:
    return FAMILIES["bert"].tokenizer().backend_tokenizer.to_str()


def write_rows(path: Path, first: int, num_rows: int, **changes: object) -> Path:
    """Rows of one question and one answer each, numbered from `first`."""
    with path.open("w") as file:
        for number in range(first, first + num_rows):
            answers = {"text": [f"{number}"], "answer_start": [len("The number is ")]}
            row = {"id": f"q{number}", "context": f"The number is {number}.", "question": "Which number?"}
            file.write(json.dumps(row | {"answers": answers} | changes) + "\n")
    return path


def read(place: Path, tokenizer: str, **changes: object):
    data = DataConfig(train=str(place), **changes)
    return tokenize_split(data, str(place), max_examples=data.max_train_examples, tokenizer=tokenizer)


def test_questions_keep_the_order_of_files_and_rows(tmp_path: Path, tokenizer: str) -> None:
    # The first file is the larger one: it is read last, and must still come first.
    write_rows(tmp_path / "a.jsonl", 0, 3000)
    write_rows(tmp_path / "b.jsonl", 3000, 10)
    split = read(tmp_path, tokenizer)
    corpus = split.corpus()
    assert [corpus.id(question) for question in range(len(corpus))] == [f"q{number}" for number in range(3010)]
    assert [corpus.references(question) for question in (0, 2999, 3009)] == [["0"], ["2999"], ["3009"]]


def test_one_big_file_is_tokenised_in_several_tasks(tmp_path: Path, tokenizer: str) -> None:
    split = read(write_rows(tmp_path / "big.jsonl", 0, 3000), tokenizer)
    assert len(split.blocks) >= 5


def test_id_that_comes_again_in_another_file_is_found(tmp_path: Path, tokenizer: str) -> None:
    write_rows(tmp_path / "a.jsonl", 0, 5)
    write_rows(tmp_path / "b.jsonl", 4, 5)
    with pytest.raises(DataError, match=r"b\.jsonl line 1: id='q4': is used twice: first in a\.jsonl line 5"):
        read(tmp_path, tokenizer)
    split = read(tmp_path, tokenizer, on_bad_row=BadRows.SKIP)
    assert len(split) == 9
    assert len(split.problems) == 1
    corpus = split.corpus()
    assert corpus.record(4) == "a.jsonl line 5"


def test_all_bad_rows_are_reported_at_once(tmp_path: Path, tokenizer: str) -> None:
    write_rows(tmp_path / "a.jsonl", 0, 5, answers={"text": ["nowhere"], "answer_start": [0]})
    write_rows(tmp_path / "b.jsonl", 5, 5, question=" ")
    with pytest.raises(DataError, match="10 problems in the data") as error:
        read(tmp_path, tokenizer)
    assert "5 x question is empty" in str(error.value)
    with pytest.raises(DataError, match="no question is left"):
        read(tmp_path, tokenizer, on_bad_row=BadRows.SKIP)


def test_digest_tells_data_apart_and_not_tokenizers_or_limits(tmp_path: Path, tokenizer: str) -> None:
    rows = write_rows(tmp_path / "a.jsonl", 0, 5)
    digest = read(rows, tokenizer).digest
    assert read(rows, FAMILIES["roberta"].tokenizer().backend_tokenizer.to_str()).digest == digest
    longer = write_rows(tmp_path / "longer.jsonl", 0, 9)
    assert read(longer, tokenizer, max_train_examples=5).digest == digest
    others = [longer, write_rows(tmp_path / "b.jsonl", 1, 5)]
    others.append(write_rows(tmp_path / "c.jsonl", 0, 5, question="Which other?"))
    others.append(write_rows(tmp_path / "d.jsonl", 0, 5, answers=None))
    for start in (0, 14):
        answers = {"text": ["the"], "answer_start": [start]}
        others.append(write_rows(tmp_path / f"{start}.jsonl", 0, 5, context="the number is the one", answers=answers))
    assert len({digest, *(read(place, tokenizer).digest for place in others)}) == 7


def test_digest_is_of_the_questions_in_the_order_of_the_files(tmp_path: Path, tokenizer: str) -> None:
    folders = {"whole": [(0, 9)], "cut": [(0, 4), (4, 5)], "turned": [(4, 5), (0, 4)]}
    for name, parts in folders.items():
        (tmp_path / name).mkdir()
        for number, (first, count) in enumerate(parts):
            write_rows(tmp_path / name / f"{number}.jsonl", first, count)
    whole, cut, turned = (read(tmp_path / name, tokenizer) for name in folders)
    assert (whole.digest, whole.token_digest) == (cut.digest, cut.token_digest)
    assert whole.digest != turned.digest
    assert whole.token_digest != turned.token_digest


def test_file_that_cannot_be_read_stops_even_a_lenient_run(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "broken.json").write_text('{"data": [')
    with pytest.raises(DataError, match=r"broken\.json"):
        read(tmp_path / "broken.json", tokenizer, on_bad_row=BadRows.SKIP)


def test_file_without_questions_is_refused(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no question"):
        read(tmp_path / "empty.jsonl", tokenizer)


def test_limit_takes_the_first_questions(tmp_path: Path, tokenizer: str) -> None:
    write_rows(tmp_path / "a.jsonl", 0, 5)
    write_rows(tmp_path / "b.jsonl", 5, 5)
    split = read(tmp_path, tokenizer, max_train_examples=7)
    corpus = split.corpus()
    assert [corpus.id(question) for question in range(len(corpus))] == [f"q{number}" for number in range(7)]


def test_split_without_answers_says_so(tmp_path: Path, tokenizer: str) -> None:
    write_rows(tmp_path / "a.jsonl", 0, 3)
    assert not read(tmp_path, tokenizer).has_unanswerable
    write_rows(tmp_path / "b.jsonl", 3, 1, answers={"text": [], "answer_start": []})
    split = read(tmp_path, tokenizer)
    assert split.has_unanswerable
    np.testing.assert_array_equal(split.corpus().answer_first < 0, [False, False, False, True])
