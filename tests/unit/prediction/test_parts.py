"""The input is cut into the same parts each time, finished ones are passed over, and no row is lost or in two parts."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from qa_ray.config.fine_tuning import DataConfig
from qa_ray.data.files import find_files
from qa_ray.prediction import questions
from qa_ray.prediction.job import find_sources
from qa_ray.prediction.parts import PART, Source, finished_parts, part_name, part_rows, read_parts

ROW = {"question": "q", "context": "c"}


def write(path: Path, num_rows: int) -> None:
    path.write_text("\n\n".join(json.dumps(ROW | {"id": f"{path.stem}{n}"}) for n in range(num_rows)))


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """Files of 5, 0 and 4 rows."""
    for name, num_rows in (("a", 5), ("b", 0), ("c", 4)):
        write(tmp_path / f"{name}.jsonl", num_rows)
    return find_sources(DataConfig(), str(tmp_path))


def read(sources: list[Source], max_rows: int | None = None) -> list[dict[str, Any]]:
    tables = list(read_parts(sources, DataConfig(), size=2, max_rows=max_rows, ending="jsonl"))
    assert all(table.schema == PART and table.num_rows == 1 for table in tables)
    found = []
    for table in tables:
        rows = part_rows(table)
        found.append(table.to_pylist()[0] | {"ids": None if rows is None else [row.id for row in rows]})
    return found


def test_parts_hold_rows_of_one_file_each_and_all_of_them(sources: list[Source]) -> None:
    found = read(sources)
    assert {part["name"]: part["ids"] for part in found} == {
        "part-00000-000000.jsonl": ["a0", "a1"],
        "part-00000-000001.jsonl": ["a2", "a3"],
        "part-00000-000002.jsonl": ["a4"],
        "part-00002-000000.jsonl": ["c0", "c1"],
        "part-00002-000001.jsonl": ["c2", "c3"],
    }
    assert sum(part["num_bytes"] for part in found) == pytest.approx(sum(source.size for source in sources))


def test_finished_parts_are_counted_and_not_parsed(sources: list[Source], monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    parse = questions.parse_line
    monkeypatch.setattr(questions, "parse_line", lambda line, *rest: parsed.append(line) or parse(line, *rest))
    names = [part_name(0, 0, "jsonl"), part_name(0, 1, "jsonl"), part_name(2, 1, "jsonl"), ".part-00002-000000.jsonl.5"]
    finished = finished_parts(names)
    assert finished == {0: (0, 1), 2: (1,)}
    again = [
        Source(**{name: getattr(source, name) for name in Source.__slots__} | {"finished": finished.get(index, ())})
        for index, source in enumerate(sources)
    ]
    assert [(part["ids"], part["num_rows"]) for part in read(again)] == [
        (None, 2), (None, 2), (["a4"], 1), (["c0", "c1"], 2), (None, 2)
    ]  # fmt: skip
    assert len(parsed) == 3


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1]), (4, [2, 2]), (6, [2, 2, 1, 1]), (99, [2, 2, 1, 2, 2])])
def test_limit_holds_over_all_files(limit: int, sizes: list[int], sources: list[Source]) -> None:
    assert [len(part["ids"]) for part in read(sources, limit)] == sizes


def test_file_that_is_gone_is_told_and_the_others_are_read(sources: list[Source], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").unlink()
    first, *others = read(sources)
    assert (first["num_rows"], first["num_bytes"]) == (0, sources[0].size)
    assert "a.jsonl cannot be read to its end" in str(pickle.loads(first["failure"]))
    assert [part["ids"] for part in others] == [["c0", "c1"], ["c2", "c3"]]


def test_sources_tell_a_changed_file_from_the_old_one(sources: list[Source], tmp_path: Path) -> None:
    assert find_sources(DataConfig(), str(tmp_path)) == sources
    assert len(find_files(DataConfig(), str(tmp_path))) == 3
    write(tmp_path / "c.jsonl", 4)
    assert find_sources(DataConfig(), str(tmp_path)) != sources
