"""Model and data as one node sees them, and whether all see the same."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from ray_runs import write_squad

from qa_ray.config.fine_tuning import DataConfig, ModelConfig
from qa_ray.config.policies import BadRows
from qa_ray.doctor.inputs import Look, look_at_files, look_at_hub, look_at_model, same_data
from qa_ray.doctor.verdict import Status, Verdict
from qa_ray.errors import ConfigError, DataError, ModelError
from qa_ray.storage.run_folder import RunFolder

GOOD = {
    "id": "1",
    "context": "Ada went to Rome.",
    "question": "Where?",
    "answers": {"text": ["Rome"], "answer_start": [12]},
}


def judged(look: Look, **settings: object) -> Verdict:
    return same_data("data.train", DataConfig(**settings), {"a": look, "b": look}, {})


def test_files_are_listed_and_their_first_questions_read(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "train.json", [f"N{number}" for number in range(20)])
    look = look_at_files(DataConfig(), str(path))
    assert look.files == (("train.json", path.stat().st_size),)
    assert look.num_questions == 10
    assert not look.problems
    assert look.tokenized == int(2.5 * path.stat().st_size)
    verdict = judged(look)
    assert verdict.status is Status.PASSED
    assert "1 file," in verdict.seen


def test_every_file_of_a_glob_counts_with_its_own_size(tmp_path: Path) -> None:
    line = json.dumps(GOOD) + "\n"
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.jsonl").write_text(line)
    (tmp_path / "inner" / "b.jsonl").write_text(line * 3)
    look = look_at_files(DataConfig(), str(tmp_path / "**"))
    assert look.files == (("a.jsonl", len(line)), ("inner/b.jsonl", 3 * len(line)))


def test_every_file_of_a_store_counts_with_its_own_size(s3_folder: str) -> None:
    folder = RunFolder(s3_folder, "data")
    for name, num_lines in (("a.jsonl", 1), ("b c.jsonl", 3)):
        folder.write(name, (json.dumps(GOOD) + "\n").encode() * num_lines)
    sizes = [num_bytes for _, num_bytes in look_at_files(DataConfig(), folder.uri).files]
    assert sizes == [len(json.dumps(GOOD)) + 1, 3 * (len(json.dumps(GOOD)) + 1)]


@pytest.mark.parametrize(
    ("on_bad_row", "status", "cure"),
    [(BadRows.ERROR, Status.FAILED, "--data.on-bad-row skip"), (BadRows.SKIP, Status.WARNING, "are left out")],
    ids=["error", "skip"],
)
def test_bad_row_among_the_first_is_told_with_its_record(
    tmp_path: Path, on_bad_row: BadRows, status: Status, cure: str
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD | {"answers": {"text": ["Oslo"], "answer_start": [12]}}))
    verdict = judged(look_at_files(DataConfig(), str(tmp_path / "a.jsonl")), on_bad_row=on_bad_row)
    assert verdict.status is status
    assert "a.jsonl line 1" in verdict.seen
    assert cure in verdict.cure


def test_file_that_cannot_be_read_fails_whatever_becomes_of_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    verdict = judged(look_at_files(DataConfig(), str(tmp_path / "a.json")), on_bad_row=BadRows.SKIP)
    assert verdict.status is Status.FAILED


def test_file_without_a_question_fails(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    verdict = judged(look_at_files(DataConfig(), str(tmp_path / "a.jsonl")))
    assert verdict.status is Status.FAILED
    assert "no question" in verdict.seen


def test_data_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        look_at_files(DataConfig(), str(tmp_path / "gone.json"))


def test_listing_that_differs_between_nodes_fails() -> None:
    look = Look((("a.json", 1000),), 10, (), fatal=False, tokenized=0)
    other = dataclasses.replace(look, files=(("a.json", 2000),))
    verdict = same_data("data.train", DataConfig(), {"a": look, "b": look, "odd": other}, {})
    assert verdict.status is Status.FAILED
    assert verdict.seen == "not the same files everywhere: 1 file, 1.0 kB on a, b; 1 file, 2.0 kB on odd"
    assert "--data.train must name data that every node can read" in verdict.cure


def test_node_that_cannot_read_the_data_is_named() -> None:
    look = Look((("a.json", 1000),), 10, (), fatal=False, tokenized=0)
    verdict = same_data("data.train", DataConfig(), {"a": look}, {"odd": "there is no file a.json"})
    assert verdict.status is Status.FAILED
    assert verdict.seen == "odd: there is no file a.json"


def test_hub_data_set_is_streamed_where_there_is_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    table = datasets.Dataset.from_list([GOOD | {"id": str(number)} for number in range(20)])
    asked = []

    def load(*_: object, streaming: bool, **__: object) -> object:
        asked.append(streaming)
        return table.to_iterable_dataset() if streaming else table

    monkeypatch.setattr("datasets.load_dataset", load)
    looks = []
    for offline in (False, True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        looks.append(look_at_hub(DataConfig(hub="x/y"), "train"))
    assert asked == [True, False]
    assert [look.num_questions for look in looks] == [10, 10]
    assert judged(looks[0]).status is Status.PASSED


def test_sound_model_passes(bert: Path) -> None:
    look_at_model(ModelConfig(name=str(bert)), 32)


def test_window_beyond_the_model_is_an_error(bert: Path) -> None:
    with pytest.raises(ConfigError, match="beyond the"):
        look_at_model(ModelConfig(name=str(bert)), 100_000)


def test_folder_without_weights_is_an_error(bert: Path, tmp_path: Path, saved: Callable[[str], Path]) -> None:
    for path in bert.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"must hold model\.safetensors"):
        look_at_model(ModelConfig(name=str(tmp_path)), 32)
