"""A model folder that brings code, given to every job that runs on Ray: none of it is run by what the folder says."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from own_code import bring_code
from ray_runs import small_config

from qa_ray.cli.console import main
from qa_ray.config.files import to_toml
from qa_ray.runs.driver import TrainResult

pytestmark = pytest.mark.usefixtures("ray_cluster")

REFUSAL = "brings Python code of its own"


@pytest.fixture
def folder(trained: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run, whose model brings code and whose record lets it run."""
    # The commands are in the cluster of the tests already.
    monkeypatch.setattr("qa_ray.runs.connection.start_ray", lambda cluster: None)
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(trained.folder, tmp_path / "runs" / "first")
    config = small_config(
        Path(trained.folder).parents[1],
        "first",
        model={"name": str(run / "model"), "trust_remote_code": True},
        run={"storage_path": str(tmp_path / "runs")},
        tracking={"enabled": False},
    )
    bring_code(run / "model", tmp_path / "code was run")
    (run / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    (tmp_path / "mine.toml").write_text(to_toml(config))
    (tmp_path / "questions.json").symlink_to(config.data.validation)
    return run


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["mine.toml", "--run.name", "other"]),
        ("train", ["runs/first/config.json", "--run.name", "other"]),
        ("tune", ["mine.toml", "--run.name", "sweep", "--tune.num-trials", "1"]),
        ("inspect", ["mine.toml", "--run.name", "look"]),
        ("doctor", ["runs/first/config.json", "--run.name", "other"]),
        ("evaluate", ["runs/first", "--data", "questions.json"]),
        ("predict", ["runs/first", "--data", "questions.json"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_job_runs_no_code_that_only_a_folder_lets_run(
    command: str, words: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *words]) == 1
    # Doctor breaks its lines.
    assert REFUSAL in " ".join(" ".join(capsys.readouterr()).split())
    assert not (tmp_path / "code was run").exists()


def test_run_that_goes_on_is_refused_instead(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "runs/first/config.json", "--train.epochs", "9"]) == 1
    assert "model.trust_remote_code: True -> False" in capsys.readouterr().err
    assert not (tmp_path / "code was run").exists()
