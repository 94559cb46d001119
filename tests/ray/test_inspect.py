"""The inspection as a job: what training would have is shown, what it would refuse is told in the same words."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pages import Page
from ray_runs import NAMES, prepare, questions, small_config, write_squad

from qa_ray.config.policies import BadRows
from qa_ray.errors import UserError
from qa_ray.inspection.job import Inspection, inspect
from qa_ray.inspection.options import as_inspection
from qa_ray.model.loading import load_tokenizer
from qa_ray.runs.driver import train
from qa_ray.runs.preparation import tokenize_data

SCRIPT = Path(__file__).parents[2] / "jobs" / "inspect.py"


def command(place: Path, out: Path, *words: object) -> list[str]:
    """The command line of `jobs/inspect.py` on what `prepare` made."""
    options = {
        "model.name": place / "tiny",
        "data.train": place / "train.json",
        "data.validation": place / "validation.json",
        "window.max-length": 128,
        "window.stride": 8,
        "cluster.local-cpus": 2,
        "out": out,
    }
    flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, str(SCRIPT), "minilm", *flags, *map(str, words)]


def look(place: Path, out: Path, **sections: dict[str, object]) -> Inspection:
    return inspect(dataclasses.replace(as_inspection(small_config(place, "planned", **sections)), out=str(out)))


def refused_by_training(place: Path, **sections: dict[str, object]) -> str:
    with pytest.raises(UserError) as refused:
        train(small_config(place, "planned", **sections))
    return str(refused.value)


def spoil(path: Path) -> Path:
    """Write the questions about all names, two of them with a wrong start."""
    content = json.loads(write_squad(path, NAMES).read_text())
    for paragraph in content["data"][0]["paragraphs"][:2]:
        paragraph["qas"][0]["answers"][0]["answer_start"] += 1
    path.write_text(json.dumps(content))
    return path


def test_command_leaves_a_page_and_nothing_else(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    done = subprocess.run(command(place, tmp_path / "seen"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "train.json", "validation.json", "seen"}
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {"data.html", "data.json"}
    assert "train: 21 questions in 21 windows" in done.stderr
    found = json.loads((tmp_path / "seen" / "data.json").read_text())["splits"]
    for name, number in (("train", 7), ("validation", 3)):
        seen = found[name]
        assert (seen["questions"], seen["unanswerable"], seen["contexts"]) == (3 * number, number, number)
        # Each has as many tokens as the windows of training have.
        assert seen["windows"] == 3 * number
    assert "Overview" in [item.text for item in Page((tmp_path / "seen" / "data.html").read_text()).all("h2")]
    [row] = [line.split() for line in done.stdout.splitlines() if line.startswith("questions ")]
    assert row == ["questions", "21", "9"]


def test_command_ends_with_1_where_training_would_not_start_and_shows_the_rest(tmp_path: Path) -> None:
    place = prepare(tmp_path)
    spoiled = spoil(tmp_path / "spoiled.json")
    words = ("--data.train", spoiled, "--data.validation", tmp_path / "gone.json")
    done = subprocess.run(
        command(place, tmp_path / "seen", *words), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: training would not start: train: 2 problems in the data:" in done.stderr
    assert "2 x answers.answer_start answer is not there" in done.stderr
    assert "there is no file or folder" in done.stderr
    shown = [line.split() for line in done.stdout.splitlines()]
    assert ["questions", "28"] in shown
    assert ["rows", "that", "cannot", "be", "used", "2"] in shown
    assert len((tmp_path / "seen" / "bad_rows_train.jsonl").read_text().splitlines()) == 2


@pytest.mark.usefixtures("ray_cluster")
def test_refusals_are_those_of_training(place: Path, tmp_path: Path) -> None:
    spoiled = {"data": {"train": str(spoil(tmp_path / "spoiled.json"))}}
    [refusal] = look(place, tmp_path / "seen", **spoiled).refusals
    assert refusal == f"train: {refused_by_training(place, **spoiled)}"
    silent = tmp_path / "silent.jsonl"
    rows = [row for row in questions(NAMES) if not row["text"]]
    silent.write_text("".join(json.dumps(row | {"id": str(n), "answers": []}) + "\n" for n, row in enumerate(rows)))
    for sections in (
        {"data": {"validation": str(silent)}},
        {"window": {"max_length": 513}},
        {"window": {"max_length": 16, "stride": 15}},
        {"data": {"train": str(tmp_path / "gone.json")}},
    ):
        found = look(place, tmp_path / "seen", **sections)
        assert found.refusals == (refused_by_training(place, **sections),)
        assert found.splits


@pytest.mark.usefixtures("ray_cluster")
def test_bad_rows_that_are_skipped_are_no_refusal(place: Path, tmp_path: Path) -> None:
    train, validation = spoil(tmp_path / "spoiled.json"), place / "train.json"
    data = {"train": str(train), "validation": str(validation), "on_bad_row": BadRows.SKIP}
    found = look(place, tmp_path / "seen", data=data)
    assert found.refusals == ()
    assert [split.rows_left_out for split in found.splits] == [2, 0]
    [shared] = [finding for finding in found.findings["validation"] if finding.key == "context_in_train"]
    # The spoiled file has all contexts, those of the other seven names too.
    assert len(shared.questions) == 21


@pytest.mark.usefixtures("ray_cluster")
def test_share_for_validation_is_that_of_training(place: Path, tmp_path: Path) -> None:
    data = {"train": str(spoil(tmp_path / "spoiled.json")), "validation_share": 0.3, "on_bad_row": BadRows.SKIP}
    seen = look(place, tmp_path / "seen", data=data)
    splits = tokenize_data(seen.config.data, load_tokenizer(seen.config.model))
    assert [split.corpus.ids() for split in seen.splits] == [
        splits.train.corpus().ids(), splits.validation.corpus().ids()
    ]  # fmt: skip
    assert len(seen.splits[1].corpus.ids()) > 0
    assert (seen.splits[0].rows_left_out, seen.refusals) == (2, ())
    [refusal] = look(place, tmp_path / "seen", data={**data, "on_bad_row": BadRows.ERROR}).refusals
    assert refusal.startswith("train: 2 problems in the data:")
