"""Model and data as one node sees them, and whether all see the same."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from families import MISMATCHED

from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.config.policies import BadRows
from qa_ray.doctor.inputs import look_at_files, look_at_hub, look_at_model, model_fits, same_data
from qa_ray.doctor.verdict import Status
from qa_ray.errors import ConfigError, DataError, ModelError
from qa_ray.storage.run_folder import RunFolder

GOOD = {
    "id": "1",
    "context": "Ada went to Rome.",
    "question": "Where?",
    "answers": {"text": ["Rome"], "answer_start": [12]},
}
BAD = GOOD | {"answers": {"text": ["Oslo"], "answer_start": [12]}}
SIZE = len(json.dumps(GOOD)) + 1


def write_lines(path: Path, *rows: dict[str, object]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_every_file_of_a_glob_is_listed_with_its_own_size(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", GOOD)
    write_lines(tmp_path / "inner" / "b.jsonl", GOOD, GOOD, GOOD)
    files = look_at_files(DataConfig(), str(tmp_path / "**"))
    assert files == (("a.jsonl", SIZE), ("inner/b.jsonl", 3 * SIZE))
    verdict = same_data({"a": files, "b": files})
    assert verdict.status is Status.PASSED
    assert verdict.seen.startswith(f"2 files, {4 * SIZE / 1000:.1f} kB, the same everywhere")


def test_every_file_of_a_store_is_listed_with_its_own_size(s3_folder: str) -> None:
    folder = RunFolder(s3_folder, "data")
    for name, num_lines in (("a.jsonl", 1), ("b c.jsonl", 3)):
        folder.write(name, (json.dumps(GOOD) + "\n").encode() * num_lines)
    assert [num_bytes for _, num_bytes in look_at_files(DataConfig(), folder.uri)] == [SIZE, 3 * SIZE]


def test_bad_row_among_the_first_fails_with_its_record_unless_it_is_left_out(tmp_path: Path) -> None:
    place = write_lines(tmp_path / "a.jsonl", GOOD, BAD)
    with pytest.raises(DataError, match=r"of the first 10 questions, 1 cannot be used: a\.jsonl line 2"):
        look_at_files(DataConfig(), place)
    look_at_files(DataConfig(on_bad_row=BadRows.SKIP), place)


def test_only_the_first_questions_are_read(tmp_path: Path) -> None:
    look_at_files(DataConfig(), write_lines(tmp_path / "a.jsonl", *[GOOD] * 10, BAD))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(BAD).encode(), "1 cannot be used"),
        (b"", "there is no question"),
    ],
    ids=["only bad rows", "empty"],
)
def test_file_that_stops_the_run_fails_whatever_becomes_of_bad_rows(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=words):
        look_at_files(DataConfig(on_bad_row=BadRows.SKIP), str(tmp_path / "a.jsonl"))


def test_listing_that_differs_between_nodes_fails() -> None:
    files, other = (("a.json", 1000),), (("a.json", 2000),)
    verdict = same_data({"a": files, "b": files, "odd": other})
    assert verdict.status is Status.FAILED
    assert verdict.seen == "not the same files everywhere: 1 file, 1.0 kB on a, b; 1 file, 2.0 kB on odd"
    assert "shared storage" in verdict.cure


def test_hub_data_set_is_streamed_where_there_is_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    table = datasets.Dataset.from_list([GOOD | {"id": str(number)} for number in range(20)])
    asked = []

    def load(*_: object, streaming: bool, **__: object) -> object:
        asked.append(streaming)
        return table.to_iterable_dataset() if streaming else table

    monkeypatch.setattr("datasets.load_dataset", load)
    for offline in (False, True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        files = look_at_hub(DataConfig(hub="x/y"), "train")
        assert same_data({"the driver": files}).seen.startswith("a data set on the Hub")
    assert asked == [True, False]


def test_sound_model_passes(bert: Path) -> None:
    look_at_model(ModelConfig(name=str(bert)), 32)


def test_window_beyond_the_model_is_an_error(bert: Path) -> None:
    with pytest.raises(ConfigError, match="beyond the"):
        look_at_model(ModelConfig(name=str(bert)), 100_000)


def test_model_that_cannot_compute_its_tokenizers_windows_is_an_error(tmp_path: Path) -> None:
    MISMATCHED.save(tmp_path)
    with pytest.raises(ModelError, match=f"the model {tmp_path} fails on a window of 32 tokens"):
        look_at_model(ModelConfig(name=str(tmp_path)), 32)


def test_folder_without_weights_is_an_error(bert: Path, tmp_path: Path, saved: Callable[[str], Path]) -> None:
    for path in bert.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"must hold model\.safetensors"):
        look_at_model(ModelConfig(name=str(tmp_path)), 32)


def test_model_that_a_gpu_does_not_hold_fails_on_that_node() -> None:
    memory = {"a": 2e9, "b": 1e9}
    assert model_fits("m", 50_000_000, memory).status is Status.PASSED
    verdict = model_fits("m", 100_000_000, memory)
    assert verdict.status is Status.FAILED
    assert verdict.seen == "weights, gradients and optimizer take 1.6 GB; b: a GPU has 1.0 GB"
