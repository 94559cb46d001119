"""The input is cut into the same parts each time, finished ones are passed over, and no row is lost or in two parts."""

import dataclasses
import json
from pathlib import Path

import pytest

from qa_ray.config.fine_tuning import DataConfig
from qa_ray.data.files import find_files
from qa_ray.prediction.job import find_inputs
from qa_ray.prediction.parts import Input, Part, finished_parts, part_name, read_parts

ROW = {"question": "q", "context": "c"}


def write(path: Path, num_rows: int) -> None:
    path.write_text("\n\n".join(json.dumps(ROW | {"id": f"{path.stem}{n}"}) for n in range(num_rows)))


@pytest.fixture
def inputs(tmp_path: Path) -> list[Input]:
    """Files of 5, 0 and 4 rows."""
    for name, num_rows in (("a", 5), ("b", 0), ("c", 4)):
        write(tmp_path / f"{name}.jsonl", num_rows)
    return find_inputs(DataConfig(), str(tmp_path))


def read(inputs: list[Input], max_rows: int | None = None) -> list[Part]:
    return list(read_parts(inputs, DataConfig(), size=2, max_rows=max_rows, ending="jsonl"))


def ids(part: Part) -> list[str] | None:
    return None if part.questions is None else [question.id for question in part.questions]


def test_parts_hold_rows_of_one_file_each_and_all_of_them(inputs: list[Input]) -> None:
    found = read(inputs)
    assert {part.name: ids(part) for part in found} == {
        "part-00000-000000.jsonl": ["a0", "a1"],
        "part-00000-000001.jsonl": ["a2", "a3"],
        "part-00000-000002.jsonl": ["a4"],
        "part-00002-000000.jsonl": ["c0", "c1"],
        "part-00002-000001.jsonl": ["c2", "c3"],
    }
    assert sum(part.size for part in found) == pytest.approx(sum(item.size for item in inputs))


def test_finished_parts_are_counted_and_their_questions_left_out(inputs: list[Input]) -> None:
    names = [part_name(0, 0, "jsonl"), part_name(0, 1, "jsonl"), part_name(2, 1, "jsonl"), ".part-00002-000000.jsonl.5"]
    finished = finished_parts(names)
    assert finished == {0: (0, 1), 2: (1,)}
    again = [dataclasses.replace(item, finished=finished.get(item.index, ())) for item in inputs]
    assert [(ids(part), part.num_rows) for part in read(again)] == [
        (None, 2), (None, 2), (["a4"], 1), (["c0", "c1"], 2), (None, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1]), (4, [2, 2]), (6, [2, 2, 1, 1]), (99, [2, 2, 1, 2, 2])])
def test_limit_holds_over_all_files(limit: int, sizes: list[int], inputs: list[Input]) -> None:
    assert [part.num_rows for part in read(inputs, limit)] == sizes


def test_file_that_is_gone_is_told_and_the_others_are_read(inputs: list[Input], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").unlink()
    first, *others = read(inputs)
    assert (first.num_rows, first.size) == (0, inputs[0].size)
    assert "a.jsonl, after 0 rows: cannot be read on node" in str(first.failure)
    assert [ids(part) for part in others] == [["c0", "c1"], ["c2", "c3"]]


def test_sources_tell_a_changed_file_from_the_old_one(inputs: list[Input], tmp_path: Path) -> None:
    assert find_inputs(DataConfig(), str(tmp_path)) == inputs
    assert len(find_files(DataConfig(), str(tmp_path))) == 3
    write(tmp_path / "c.jsonl", 4)
    assert find_inputs(DataConfig(), str(tmp_path)) != inputs
