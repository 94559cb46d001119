"""A sweep of two trials on a local cluster, with a tiny model; test_tune.py is about all that may happen to one."""

import dataclasses
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from qa_ray.tuning.history import Status
from transformers import AutoModelForQuestionAnswering
from trips import prepare, trip_config

from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import BestBy
from qa_ray.tuning.driver import search
from qa_ray.tuning.options import SamplerKind, SchedulerKind, SweepConfig, TuneConfig

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_sweep_keeps_the_model_of_the_trial_that_learns(tmp_path: Path) -> None:
    prepare(tmp_path)
    config = trip_config(tmp_path, "sweep", train={"epochs": 1}, evaluate={"best_by": BestBy.LOSS})
    parts = {item.name: getattr(config, item.name) for item in dataclasses.fields(Config)}
    tune = TuneConfig(sampler=SamplerKind.GRID, scheduler=SchedulerKind.NONE, include_default=False)
    space = ("optim.learning_rate=choice(1e-9, 1e-3)", "window.stride=choice(16)")
    result = search(SweepConfig(**parts, space=space, tune=tune))
    assert [trial.status for trial in result.sweep.trials] == [Status.FINISHED, Status.FINISHED]
    idle, learning = result.sweep.trials
    assert learning.score(result.sweep.goal) < idle.score(result.sweep.goal)
    folder = tmp_path / "runs" / "sweep" / "trials" / learning.name
    assert result.best.folder == str(folder)
    AutoModelForQuestionAnswering.from_pretrained(folder / "model")
    assert json.loads((folder / "config.json").read_text())["optim"]["learning_rate"] == 1e-3
    assert learning.name in (tmp_path / "runs" / "sweep" / "report.html").read_text()
    store = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = store.search_runs([store.get_experiment_by_name("qa_ray").experiment_id], "tags.`sweep.best` = 'true'")
    assert [run.info.run_name for run in runs] == [learning.name]
