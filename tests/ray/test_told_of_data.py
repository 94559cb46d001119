"""Before a run starts, its log tells what was recognised, what is lost by skipping, and what stands in both splits."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from ray_runs import prepare as put_in_place
from ray_runs import small_config

from qa_ray.config.policies import BadRows
from qa_ray.runs.preparation import prepare
from qa_ray.runs.resources import plan_resources
from qa_ray.storage.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_in_place(tmp_path_factory.mktemp("told"))


def told(place: Path, name: str, caplog: pytest.LogCaptureFixture, batch: int = 4, **data: Any) -> list[str]:
    """What the log says of a run that is prepared, and not trained."""
    config = small_config(place, name, data=data, batch={"size": batch})
    with caplog.at_level(logging.INFO, "qa_ray"):
        prepare(config, RunFolder.locate(config.run), plan_resources(config.cluster), owner="a job")
    return caplog.messages


def test_contexts_of_both_splits(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = told(place, "both", caplog, validation=str(place / "train.json"))
    assert f"{place / 'train.json'}: 1 file, JSON of paragraphs" in lines
    (note,) = [line for line in lines if "of the training data" in line]
    assert note.startswith("validation: 21 of 21 questions are about 7 contexts of the training data: scores flatter.")
    assert "First at train.json data[0].paragraphs[0].qas[0], " in note


def test_splits_of_one_file_have_no_context_in_common(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = told(place, "shared", caplog, validation="nowhere.json", validation_share=0.3)
    assert not [line for line in lines if "of the training data" in line]
    assert [line.split(" in ")[0] for line in lines if " windows" in line] == [
        "train: 15 questions",
        "validation: 6 questions",
    ]


def test_workers_that_would_have_nothing_to_do(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    def notes(name: str, batch: int) -> list[str]:
        caplog.clear()
        return [line for line in told(place, name, caplog, batch=batch) if "nothing to do" in line]

    assert notes("enough", 2) == []
    (note,) = notes("too-few", 1)
    assert note.startswith("2 workers share the batch.size=1 windows of a step: 1 of them have nothing to do. ")


def test_what_is_lost_by_skipping(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = json.loads((place / "train.json").read_text())
    asked = [qa for paragraph in content["data"][0]["paragraphs"] for qa in paragraph["qas"]]
    for qa in asked[3:]:
        qa["question"] = " "
    (place / "lost.json").write_text(json.dumps(content))
    lines = told(place, "lost", caplog, train=str(place / "lost.json"), on_bad_row=BadRows.SKIP)
    assert "train: 18 rows cannot be used and were left out; bad_rows_train.jsonl in the run's folder says why" in lines
    assert "train: MOST OF THE DATA IS LEFT OUT, 18 of 21 rows: 18 x question is empty" in lines
