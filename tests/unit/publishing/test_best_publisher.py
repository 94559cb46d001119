"""The best model so far on a Hub of our own, while a run is going on."""

import logging
import math
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from finished_run import finished_run
from hub import connected_hub
from hub_state import Hub
from small_runs import tiny_config

from qa_ray.config.fine_tuning import Config, EvalConfig
from qa_ray.config.policies import BestBy
from qa_ray.publishing.best_publisher import BestPublisher, best_step
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import RESULT, RunFolder

ID = "somebody/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with connected_hub(monkeypatch) as server:
        yield server


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that is going on, with its first epoch's checkpoint still unwritten."""
    run = finished_run(tmp_path)
    (tmp_path / "first" / RESULT).unlink()
    (tmp_path / "epoch").mkdir()
    for name in ("model", "evaluation"):
        shutil.move(tmp_path / "first" / name, tmp_path / "epoch" / name)
    return run


@pytest.fixture
def config(run: RunFolder) -> Config:
    return tiny_config(Path(run.storage_path) / "base", publish={"repo_id": ID, "tag": "v1", "each_best": True})


def store_epoch(run: RunFolder, step: int) -> None:
    """Store a checkpoint of an epoch, as training does."""
    CheckpointStore(run).publish(f"step-{step:08d}", Path(run.storage_path) / "epoch")


def commits(hub: Hub) -> list[str]:
    return [commit.message for commit in hub.repos[ID].branches["main"][1:]] if ID in hub.repos else []


def publishing(config: Config, run: RunFolder, evaluations: Mapping[int, Mapping[str, float]]) -> BestPublisher:
    return BestPublisher(config, run, evaluations, look_every_s=0.01)


def is_watching() -> bool:
    return any(thread.name == "qa_ray-publisher" for thread in threading.enumerate())


def wait_for(hub: Hub, number: int) -> None:
    while len(commits(hub)) < number:
        assert is_watching()
        time.sleep(0.01)


def test_each_best_epoch_is_published_once_it_is_stored(hub: Hub, run: RunFolder, config: Config) -> None:
    evaluations = {0: {"eval_f1": 99.0}, 4: {"eval_f1": 50.0}}
    with publishing(config, run, evaluations):
        store_epoch(run, 4)
        wait_for(hub, 1)
        evaluations[8] = {"eval_f1": 40.0}
        store_epoch(run, 8)
        evaluations[12] = {"eval_f1": 60.0}
        (Path(run.storage_path) / "epoch" / "model" / "qa_ray.json").write_text(
            '{"max_length": 32, "stride": 4, "n_best": 3, "max_answer_length": 5, "no_answer_threshold": 0.5}'
        )
        store_epoch(run, 12)
        wait_for(hub, 2)
    assert commits(hub) == ["Model of the run first, step 4", "Model of the run first, step 12"]
    card = hub.repos[ID].branches["main"][1].files["README.md"].decode()
    assert "it is the best model up to step 4" in card
    assert not hub.repos[ID].tags


def test_failure_is_told_and_the_next_best_epoch_is_published(
    hub: Hub, run: RunFolder, config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = "hf_writerwriterwriterwriter"
    monkeypatch.delenv("HF_TOKEN")
    evaluations = {4: {"eval_f1": 50.0}}
    store_epoch(run, 4)
    with caplog.at_level(logging.WARNING), publishing(config, run, evaluations):
        while "step 4, is not published; training goes on: there is no token" not in caplog.text:
            assert is_watching()
            time.sleep(0.01)
        monkeypatch.setenv("HF_TOKEN", token)
        store_epoch(run, 8)
        evaluations[8] = {"eval_f1": 51.0}
        wait_for(hub, 1)
    assert commits(hub) == ["Model of the run first, step 8"]
    assert "publish it later" not in caplog.text


def test_nothing_is_published_unless_it_is_asked_for(hub: Hub, run: RunFolder, config: Config) -> None:
    quiet = tiny_config(Path(run.storage_path) / "base", publish={"repo_id": ID})
    store_epoch(run, 4)
    with publishing(quiet, run, {4: {"eval_f1": 50.0}}):
        assert not is_watching()
    assert not hub.requests


@pytest.mark.parametrize(
    ("scores", "by", "best"),
    [
        ({}, BestBy.F1, None),
        ({0: 9.0}, BestBy.F1, None),
        ({0: 9.0, 2: 1.0, 4: 3.0, 6: 3.0}, BestBy.F1, 4),
        ({2: 1.0, 4: 3.0}, BestBy.LOSS, 2),
        ({2: math.nan, 4: 3.0, 6: None}, BestBy.LOSS, 4),
        ({2: None, 4: math.inf}, BestBy.LOSS, 2),
    ],
    ids=["nothing yet", "before training", "first of equals", "least loss", "no numbers", "no number at all"],
)
def test_best_step_is_the_one_that_training_keeps(
    scores: dict[int, float | None], by: BestBy, best: int | None
) -> None:
    evaluations = {step: {} if score is None else {f"eval_{by}": score} for step, score in scores.items()}
    assert best_step(evaluations, EvalConfig(best_by=by)) == best
