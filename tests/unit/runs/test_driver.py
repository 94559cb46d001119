"""Jobs that begin a run of one name at the same time do not get in each other's way."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from savers import fail
from small_runs import changed, tiny_config

from qa_ray.config.fine_tuning import Config
from qa_ray.errors import DataError, StorageError
from qa_ray.runs import driver
from qa_ray.runs.driver import RunContext
from qa_ray.runs.resume import ExistingRun, find_run
from qa_ray.storage.ownership import create, withdraw
from qa_ray.storage.run_folder import CONFIG


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return changed(tiny_config(tmp_path / "model"), run={"name": "run", "storage_path": str(tmp_path / "runs")})


@pytest.fixture
def mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something is wrong with the data."""
    monkeypatch.setattr(driver, "prepare", fail(DataError("train.json is no file")))


def begin(config: Config, found: ExistingRun) -> Any:
    return driver._begin(config, found, SimpleNamespace(), RunContext())


def test_start_that_fails_leaves_no_folder(config: Config, mistake: None) -> None:
    found = find_run(config)
    with pytest.raises(DataError):
        begin(config, found)
    assert not found.folder.exists()


def test_job_that_finds_its_name_taken_leaves_the_run_to_the_other(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = changed(config, train={"seed": 7})
    first, second = find_run(config), find_run(other)

    def prepare(*_: Any, **__: Any) -> None:
        # The other one looked for the run before this one began it.
        with pytest.raises(StorageError, match="another job has begun a run of this name"):
            begin(other, second)
        assert json.loads(first.folder.read(CONFIG) or b"")["train"]["seed"] == config.train.seed
        raise DataError("train.json is no file")

    monkeypatch.setattr(driver, "prepare", prepare)
    with pytest.raises(DataError):
        begin(config, first)
    assert not first.folder.exists()


def test_start_that_fails_leaves_the_folder_of_a_job_that_goes_on(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = find_run(config).folder
    create(folder, "first", {CONFIG: json.dumps(dataclasses.asdict(config)).encode()})
    second = find_run(config)
    assert second.resumed

    def prepare(*_: Any, **__: Any) -> None:
        withdraw(folder, "first", created=True)
        assert folder.exists()
        raise DataError("train.json is no file")

    monkeypatch.setattr(driver, "prepare", prepare)
    with pytest.raises(DataError):
        begin(config, second)
    assert find_run(config).resumed, "a run that may not go on so is left as it was"
