"""Parts are whole or not there, and a folder takes the answers of one model and one set of settings."""

from pathlib import Path
from typing import Any

import pytest

from qa_ray.errors import StorageError
from qa_ray.prediction.output_folder import ANSWERS, MANIFEST, OutputFolder

WANTED: dict[str, Any] = {
    "model": {"name": "m", "fingerprint": "f"},
    "input": [{"name": "a", "size": 1}],
    "settings": {"top_k": 1, "part_size": 8},
}


def test_part_is_listed_once_it_is_written(tmp_path: Path) -> None:
    folder = OutputFolder(str(tmp_path / "out"))
    assert folder.parts() == {}
    folder.write(f"{ANSWERS}/part-00000-000000.jsonl", b"line\n")
    assert folder.parts() == {"part-00000-000000.jsonl": 5}
    (path,) = (tmp_path / "out" / ANSWERS).iterdir()
    assert path.read_bytes() == b"line\n"


def test_half_a_part_is_never_seen(tmp_path: Path) -> None:
    """The disk refuses the rename to a name that is taken, so what was written until then stays."""
    folder, name = OutputFolder(str(tmp_path)), "part-00000-000000.jsonl"
    (tmp_path / ANSWERS / name / "taken").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be written"):
        folder.write(f"{ANSWERS}/{name}", b"line\n")
    (half,) = (path.name for path in (tmp_path / ANSWERS).iterdir() if path.is_file())
    assert half.startswith(".part-")
    assert not folder.parts()
    folder.sweep()
    assert [path.name for path in (tmp_path / ANSWERS).iterdir()] == [name]


def test_folder_goes_on_with_the_same_manifest_under_another_name_of_the_model(tmp_path: Path) -> None:
    folder = OutputFolder(str(tmp_path))
    assert folder.claim(WANTED) == WANTED
    renamed = WANTED | {"model": {"name": "moved", "fingerprint": "f"}}
    assert folder.claim(renamed) == WANTED
    folder.save_manifest(WANTED | {"finished": 3})
    assert folder.claim(WANTED)["finished"] == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"name": "n", "fingerprint": "g"}}, "model: m there, n now"),
        ({"input": [{"name": "a", "size": 2}]}, "the files of --data, or their sizes or times"),
        ({"settings": {"top_k": 2, "part_size": 9}}, "top_k: 1 there, 2 now, part_size: 8 there, 9 now"),
    ],
    ids=["model", "input", "settings"],
)
def test_other_manifest_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = OutputFolder(str(tmp_path))
    folder.claim(WANTED)
    with pytest.raises(StorageError, match=words):
        folder.claim(WANTED | changes)
    assert folder.manifest() == WANTED


def test_parts_without_a_manifest_are_not_mixed_with_others(tmp_path: Path) -> None:
    folder = OutputFolder(str(tmp_path))
    folder.write(f"{ANSWERS}/part-00000-000000.jsonl", b"line\n")
    with pytest.raises(StorageError, match=f"holds parts without a {MANIFEST}"):
        folder.claim(WANTED)


def test_damaged_manifest_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(StorageError, match=f"{MANIFEST} cannot be used"):
        OutputFolder(str(tmp_path)).claim(WANTED)


def test_only_what_writers_left_is_swept(tmp_path: Path) -> None:
    folder = OutputFolder(str(tmp_path))
    for name in (".part-00000-000000.jsonl.12", "part-00000-000000.jsonl", "notes.txt"):
        folder.write(f"{ANSWERS}/{name}", b"x")
    folder.sweep()
    assert sorted(path.name for path in (tmp_path / ANSWERS).iterdir()) == ["notes.txt", "part-00000-000000.jsonl"]
