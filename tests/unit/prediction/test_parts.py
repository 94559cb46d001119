"""The input is cut into the same parts each time, finished ones are passed over, and no row is lost or in two parts."""

import dataclasses
import gzip
import json
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from predictions import damaged

from qa_ray.config.data import DataConfig
from qa_ray.config.policies import DataFormat
from qa_ray.data.files import find_files
from qa_ray.prediction.job import find_inputs
from qa_ray.prediction.output_folder import ANSWERS, OutputFolder
from qa_ray.prediction.parts import (
    Input,
    Part,
    finished_parts,
    part_name,
    part_sizes,
    read_parts,
)

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


def test_parts_grow_so_that_the_first_are_there_soon_and_the_last_is_a_small_share() -> None:
    sizes = list(islice(part_sizes(512), 100))
    assert [(size, len(list(group))) for size, group in groupby(sizes)] == [
        (32, 16), (64, 16), (128, 16), (256, 16), (512, 36)
    ]  # fmt: skip
    assert [list(islice(part_sizes(most), 18))[::17] for most in (2, 32, 100)] == [[2, 2], [32, 32], [32, 64]]
    assert next(islice(part_sizes(100), 32, None)) == 100
    done = np.cumsum(sizes)
    assert (np.array(sizes[16:]) <= done[15:-1] / 8).all()


def test_file_is_cut_into_parts_that_grow(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 700)
    found = list(
        read_parts(find_inputs(DataConfig(), str(tmp_path)), DataConfig(), size=512, max_rows=None, ending="j")
    )
    assert [part.num_rows for part in found] == [32] * 16 + [64, 64, 60]
    assert [id for part in found for id in ids(part) or []] == [f"a{number}" for number in range(700)]


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


@pytest.fixture
def broken_off(tmp_path: Path) -> list[Input]:
    """A Parquet file of five row groups of three rows, and one of two rows after it."""
    (tmp_path / "tables").mkdir()
    for name, num_rows in (("a", 15), ("b", 2)):
        rows = [ROW | {"id": f"{name}{number}"} for number in range(num_rows)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tables" / f"{name}.parquet", row_group_size=3)
    return find_inputs(DataConfig(), str(tmp_path / "tables"))


def test_rows_before_a_file_breaks_off_are_in_parts(broken_off: list[Input], tmp_path: Path) -> None:
    with damaged(tmp_path / "tables" / "a.parquet", row_group=3):
        *found, failed, other = read(broken_off)
    assert {part.name: ids(part) for part in found} == {
        "part-00000-000000.jsonl": ["a0", "a1"],
        "part-00000-000001.jsonl": ["a2", "a3"],
        "part-00000-000002.jsonl": ["a4", "a5"],
        "part-00000-000003.jsonl": ["a6", "a7"],
        "part-00000-000004-incomplete.jsonl": ["a8"],
    }
    assert "a.parquet, after 9 rows: cannot be read on node" in str(failed.failure)
    assert (other.name, ids(other)) == ("part-00001-000000.jsonl", ["b0", "b1"])
    assert sum(part.size for part in [*found, failed]) == pytest.approx(broken_off[0].size)


def test_file_that_breaks_off_between_two_parts_leaves_none_that_lacks_rows(
    broken_off: list[Input], tmp_path: Path
) -> None:
    with damaged(tmp_path / "tables" / "a.parquet", row_group=2):
        found = read(broken_off)
    assert [part.name for part in found[:4]] == [*(part_name(0, number, "jsonl") for number in range(3)), ""]


def test_packed_file_that_is_cut_off_gives_what_is_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    lines = [json.dumps(ROW | {"id": number, "context": str(number) * 50}) for number in range(4000)]
    packed = gzip.compress("\n".join(lines).encode())
    path.write_bytes(packed[: len(packed) // 2])
    data = DataConfig(format=DataFormat.JSONL)
    found = list(read_parts(find_inputs(data, str(path)), data, size=1000, max_rows=None, ending="jsonl"))
    *parts, failed = found
    read_ids = [question.id for part in parts for question in part.questions or []]
    assert read_ids == [str(number) for number in range(len(read_ids))]
    assert 1000 < len(read_ids) < 3000
    assert parts[-1].name.endswith("-incomplete.jsonl")
    assert f"a.jsonl.gz, after {len(read_ids)} rows" in str(failed.failure)


def test_limit_is_not_filled_with_others_where_rows_are_missing(broken_off: list[Input], tmp_path: Path) -> None:
    with damaged(tmp_path / "tables" / "a.parquet", row_group=0):
        [failed] = read(broken_off, 16)
    assert failed.failure is not None
    assert [ids(part) for part in read(broken_off, 16)][-2:] == [["a14"], ["b0"]]


def test_each_question_is_there_once_when_the_file_can_be_read_again(broken_off: list[Input], tmp_path: Path) -> None:
    folder, place = OutputFolder(str(tmp_path)), tmp_path / ANSWERS

    def write_parts() -> None:
        """Write what is missing, as the job does: the ids alone."""
        folder.sweep()
        finished = finished_parts(folder.parts())
        for part in read([dataclasses.replace(item, finished=finished.get(item.index, ())) for item in broken_off]):
            if part.questions is not None:
                folder.write(f"{ANSWERS}/{part.name}", "".join(f"{name}\n" for name in ids(part) or []).encode())

    def written() -> list[str]:
        return [line for path in sorted(place.iterdir()) for line in path.read_text().splitlines()]

    everything = [f"a{number}" for number in range(15)] + ["b0", "b1"]
    with damaged(tmp_path / "tables" / "a.parquet", row_group=3):
        for _ in range(2):
            write_parts()
            assert written() == [*everything[:9], "b0", "b1"]
            assert (place / "part-00000-000004-incomplete.jsonl").exists()
            assert 4 not in finished_parts(folder.parts())[0]
    with damaged(tmp_path / "tables" / "a.parquet", row_group=1):
        write_parts()
        assert written() == [*everything[:8], "b0", "b1"], "whole parts stay, though now less can be read"
    write_parts()
    assert written() == everything
    assert sorted(path.name for path in place.iterdir()) == [
        *(part_name(0, number, "jsonl") for number in range(8)),
        part_name(1, 0, "jsonl"),
    ]
