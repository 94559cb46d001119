"""A run that goes on finds other data than it was begun with, or another tokenizer: it is refused, and stays whole."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray_runs import small_config

from qa_ray.errors import DataError
from qa_ray.runs.driver import TrainResult, train


@pytest.fixture
def run(trained: TrainResult, place: Path) -> Iterator[Path]:
    """A finished run whose data and tokenizer may be changed."""
    kept = {path: path.read_bytes() for path in (*place.glob("*.json"), place / "tiny" / "tokenizer.json")}
    folder = Path(shutil.copytree(trained.folder, place / "runs" / "changed"))
    yield folder
    shutil.rmtree(folder)
    for path, content in kept.items():
        path.write_bytes(content)


def other_words(name: str) -> Callable[[Path], None]:
    """Another word in each context, of as many letters and tokens."""

    def change(place: Path) -> None:
        text = (place / name).read_text()
        assert " came home" in text
        (place / name).write_text(text.replace(" came home", " fell home"))

    return change


def other_vocabulary(place: Path) -> None:
    """Two words take each other's place."""
    path = place / "tiny" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    words["came"], words["fell"] = words["fell"], words["came"]
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_words("train.json"), r"data\.train=.*train\.json holds other"),
        (other_words("validation.json"), r"data\.validation=.*validation\.json holds other"),
        (other_vocabulary, r"the tokenizer of model\.name=.*tiny makes other tokens"),
    ],
    ids=["training", "validation", "tokenizer"],
)
def test_run_that_finds_a_change_is_refused_and_stays_as_it_was(
    run: Path, place: Path, change: Callable[[Path], None], words: str
) -> None:
    change(place)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=rf"what run\.name=changed was begun with has changed: {words}") as raised:
        train(small_config(place, "changed", train={"epochs": 4}, tracking={"enabled": False}))
    assert ";" not in str(raised.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
