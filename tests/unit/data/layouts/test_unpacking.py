"""Compressed text is read as plain text is, row by row, and a cut archive is an error after the rows before it."""

import gzip
import json
import random

import pytest
from flat_rows import LISTED, dumped, flat, packed, read, write

from qa_ray.config.data import DataConfig
from qa_ray.config.policies import DataFormat
from qa_ray.data.files import find_files
from qa_ray.data.rows import read_rows, recognised
from qa_ray.data.validation import is_fatal
from qa_ray.errors import DataError

ENDINGS = [".gz", ".bz2", ".zst", ".xz"]
WORDS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".xz": "xz"}


def questions(passages):
    return [(one.context, question.id, question.answers) for one in passages for question in one.questions]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["f.jsonl", "f.json", "f.csv", "f.tsv"])
def test_text_of_every_layout_may_be_compressed(tmp_path, name, ending):
    write(tmp_path / name, flat(LISTED if "json" in name else dumped(LISTED)))
    (tmp_path / f"{name}{ending}").write_bytes(packed((tmp_path / name).read_bytes(), ending))
    found, problems = read(tmp_path / f"{name}{ending}")
    assert problems == []
    assert len(questions(found)) == 4
    assert questions(found) == questions(read(tmp_path / name)[0])
    assert found[0].questions[0].record.startswith(f"{name}{ending} ")


@pytest.mark.parametrize("ending", ENDINGS)
def test_stated_format_is_that_of_what_is_packed(tmp_path, ending):
    write(tmp_path / "f.jsonl", flat(LISTED))
    (tmp_path / f"f{ending}").write_bytes(packed((tmp_path / "f.jsonl").read_bytes(), ending))
    found, problems = read(tmp_path / f"f{ending}", format=DataFormat.JSONL)
    assert problems == []
    assert questions(found) == questions(read(tmp_path / "f.jsonl")[0])


def test_archive_in_several_pieces_is_read_to_its_end(tmp_path):
    lines = [json.dumps({"question": str(number), "context": "c"}).encode() + b"\n" for number in range(3)]
    (tmp_path / "f.jsonl.gz").write_bytes(b"".join(map(gzip.compress, lines)))
    assert [row.content["question"] for row in rows_of_file(tmp_path)] == ["0", "1", "2"]


def rows_of_file(folder):
    (file,) = find_files(DataConfig(), str(folder))
    return read_rows(file, DataConfig(), answers=False)


def many_lines() -> list[bytes]:
    """Megabytes that cannot be packed well."""
    source = random.Random(0)
    return [
        json.dumps({"question": f"{number}", "context": source.randbytes(250).hex()}).encode() + b"\n"
        for number in range(8000)
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_progress_goes_by_what_is_stored(tmp_path, ending):
    lines = many_lines()
    (tmp_path / f"f.jsonl{ending}").write_bytes(packed(b"".join(lines), ending))
    shares = [row.share for row in rows_of_file(tmp_path)]
    assert len(shares) == len(lines)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert 0.2 < shares[len(lines) // 2] < 0.8


@pytest.mark.parametrize("ending", ENDINGS)
def test_cut_archive_is_an_error_after_the_rows_before_it(tmp_path, ending):
    lines = many_lines()
    whole = packed(b"".join(lines), ending)
    (tmp_path / f"f.jsonl{ending}").write_bytes(whole[: len(whole) * 3 // 4])
    rows, found = rows_of_file(tmp_path), []
    with pytest.raises(DataError, match=f"its {WORDS[ending]} archive is cut or damaged: .*Copy it again"):
        found.extend(row.content["question"] for row in rows)
    assert found == [str(number) for number in range(len(found))]
    assert 0.25 < len(found) / len(lines) < 0.76


@pytest.mark.parametrize("name", ["f.json", "f.jsonl", "f.csv"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_no_archive_is_told(tmp_path, name, ending):
    (tmp_path / f"{name}{ending}").write_bytes(b'[{"context": "c"}]' * 99)
    passages, (problem,) = read(tmp_path)
    assert passages == []
    assert is_fatal(problem)
    assert f"its {WORDS[ending]} archive is cut or damaged" in problem.message


@pytest.mark.parametrize("name", ["f.json", "f.jsonl", "f.csv"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_archive_that_lacks_its_ending_is_told(tmp_path, name, ending):
    (tmp_path / name).write_bytes(packed(b"{}", ending))
    _, (problem,) = read(tmp_path)
    assert problem.message.endswith(f": it is compressed: name it {name}{ending}")


def test_what_is_recognised_is_one_line(tmp_path):
    def words():
        return recognised(find_files(DataConfig(), str(tmp_path)))

    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"question": "q"}'))
    assert words() == "1 file, JSON lines (gzip)"
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(b'{"question": "q"}\n{"question": "q"}'))
    assert words() == "2 files, JSON lines (gzip)"
    (tmp_path / "c.json").write_text("7")
    (tmp_path / "d.json").write_text("no JSON")
    (tmp_path / "e.json.xz").write_text("no archive")
    assert words() == "5 files: 2 x JSON lines (gzip), 2 x JSON, 1 x JSON (xz)"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.json", '{"data": [{"paragraphs": [{"context": "c", "qas": []}]}]}', "JSON of paragraphs"),
        ("f.json", '[{"context": "\\"qas\\": c", "question": "q"}]', "JSON of rows"),
        ("f.json", '[{"context": "c", "asked": "q"}]', "JSON"),
        ("f.json", '{"context": "c", "qas": []}\n', "JSON lines of paragraphs"),
        ("f.jsonl", '{"header": {}}\n{"context": "c", "qas": []}\n', "JSON lines of paragraphs"),
        ("f.jsonl", '{"context": "c", "question": "q"}\n', "JSON lines"),
        ("f.tsv", "context\tquestion\n", "TSV"),
        ("f.parquet", "", "Parquet"),
    ],
)
def test_beginning_tells_the_shape(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    assert recognised(find_files(DataConfig(), str(tmp_path))) == f"1 file, {words}"
