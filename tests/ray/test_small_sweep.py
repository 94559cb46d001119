"""A sweep of two trials on a local cluster, with a tiny model; test_tune.py is about all that may happen to one."""

import dataclasses
import json
import logging
import time
from pathlib import Path

import pytest
import ray
from faults import Ended, meanwhile
from mlflow import MlflowClient
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray_runs import NAMES, outcome_of, prepare, small_config, training_workers, write_squad
from transformers import AutoModelForQuestionAnswering

from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import BestBy
from qa_ray.errors import DataError, StorageError, TrainingError
from qa_ray.runs.driver import train
from qa_ray.tuning.driver import search
from qa_ray.tuning.options import SamplerKind, SchedulerKind, SweepConfig, TuneConfig
from qa_ray.tuning.space import apply
from qa_ray.tuning.sweep import release_lost_reservations
from qa_ray.tuning.trials import Status

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_sweep_keeps_the_model_of_the_trial_that_learns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare(tmp_path)
    config = small_config(tmp_path, "sweep", train={"epochs": 1}, evaluate={"best_by": BestBy.LOSS})
    parts = {item.name: getattr(config, item.name) for item in dataclasses.fields(Config)}
    tune = TuneConfig(sampler=SamplerKind.GRID, scheduler=SchedulerKind.NONE, include_default=False)
    space = ("optim.learning_rate=choice(1e-9, 1e-3)", "window.stride=choice(16)")
    config = SweepConfig(**parts, space=space, tune=tune)
    # It ends before any trial has begun.
    in_no_time = dataclasses.replace(config, tune=dataclasses.replace(tune, hours=1e-9))
    with caplog.at_level(logging.INFO, "qa_ray"), pytest.raises(TrainingError, match="no trial of the sweep sweep has"):
        search(in_no_time)
    assert "0 of 8 trials have ended: run the same command with --run.name sweep to go on" in caplog.messages
    workers: set[int] = set()

    def watch(ended: Ended) -> None:
        while not ended():
            workers.update(process.pid for process in training_workers())
            time.sleep(0.1)

    with meanwhile(watch):
        result = search(config)
    assert [trial.status for trial in result.sweep.trials] == [Status.FINISHED, Status.FINISHED]
    assert len(workers) == 2, "both trials have the same two"
    learning, idle = sorted(result.sweep.trials, key=lambda trial: str(trial.parameters["optim.learning_rate"]))
    assert learning.score(result.sweep.objective) < idle.score(result.sweep.objective)
    folder = tmp_path / "runs" / "sweep" / "trials" / learning.name
    assert result.best.folder == str(folder)
    AutoModelForQuestionAnswering.from_pretrained(folder / "model")
    for trial in result.sweep.trials:
        changes = apply(config.base, trial.parameters)
        train(dataclasses.replace(changes, run=dataclasses.replace(changes.run, name=f"alone-{trial.number}")))
        alone = outcome_of(tmp_path / "runs" / f"alone-{trial.number}")
        assert outcome_of(tmp_path / "runs" / "sweep" / "trials" / trial.name) == alone
    assert json.loads((folder / "config.json").read_text())["optim"]["learning_rate"] == 1e-3
    assert learning.name in (tmp_path / "runs" / "sweep" / "report.html").read_text()
    store = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = store.search_runs([store.get_experiment_by_name("qa_ray").experiment_id], "tags.`sweep.best` = 'true'")
    assert [run.info.run_name for run in runs] == [learning.name]
    # What MLflow lacks of a trial is sent by the same command.
    tracking = tmp_path / "runs" / "sweep" / "trials" / idle.name / "tracking.json"
    record = json.loads(tracking.read_text())
    lost = store.get_run(record["run_id"])
    store.delete_run(lost.info.run_id)
    tracking.write_text(json.dumps(record | {"owed": True}))
    search(config)
    sent = store.get_run(json.loads(tracking.read_text())["run_id"])
    assert sent.info.run_id != lost.info.run_id
    assert (sent.info.status, sent.data.params, sent.data.metrics) == ("FINISHED", lost.data.params, lost.data.metrics)
    assert sent.data.tags["mlflow.parentRunId"] == lost.data.tags["mlflow.parentRunId"]
    assert sent.data.tags["sweep.status"] == "finished"
    # Its trials could not be compared with one that is measured by other questions.
    trials = tmp_path / "runs" / "sweep" / "trials.json"
    record = trials.read_text().replace('"finished"', '"running"', 1)
    trials.write_text(record)
    write_squad(tmp_path / "validation.json", NAMES[6:9])
    with pytest.raises(DataError, match=r"run\.name=sweep was begun with has changed: data\.validation=.* holds other"):
        search(config)
    assert trials.read_text() == record


def test_sweep_whose_record_cannot_be_written_goes_on_to_its_end_and_says_so(tmp_path: Path) -> None:
    prepare(tmp_path)
    config = small_config(tmp_path, "sweep", tracking={"enabled": False})
    parts = {item.name: getattr(config, item.name) for item in dataclasses.fields(Config)}
    tune = TuneConfig(sampler=SamplerKind.GRID, include_default=False)
    # As wide as the window: no trial is begun.
    config = SweepConfig(**parts, space=("window.stride=choice(128, 256)",), tune=tune)
    folder = tmp_path / "runs" / "sweep"
    (folder / "trials.json.part").mkdir(parents=True)
    (folder / "sweep.json").write_text('{"config": {}}')
    with pytest.raises(StorageError, match=r"cannot be written: .*trials\.json\.part"):
        search(config)
    (folder / "trials.json.part").rmdir()
    with pytest.raises(TrainingError, match="no trial of the sweep sweep has finished"):
        search(config)
    assert [record["status"] for record in json.loads((folder / "trials.json").read_text())] == ["pruned", "pruned"]


@ray.remote(num_cpus=0)
class Reserving:
    """Reserves a CPU, and may have a child that does so too: so a trial's process has a controller."""

    def reserve(self) -> PlacementGroup:
        group = placement_group([{"CPU": 1}])
        ray.get(group.ready())
        return group

    def child_reserves(self) -> PlacementGroup:
        self.child = Reserving.remote()
        return ray.get(self.child.reserve.remote())


def state_of(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


def test_only_what_the_dead_have_reserved_is_released() -> None:
    lost, living = Reserving.remote(), Reserving.remote()
    group, other = ray.get([lost.child_reserves.remote(), living.reserve.remote()])
    # As Ray Tune's own groups: the driver made it, and it waits.
    own = placement_group([{"CPU": 1}])
    release_lost_reservations()
    assert (state_of(group), state_of(other), state_of(own)) == ("CREATED", "CREATED", "PENDING")
    ray.kill(lost)
    while state_of(group) != "REMOVED":
        time.sleep(0.1)
        release_lost_reservations()
    ray.get(own.ready())
    assert state_of(other) == "CREATED"
    for kept in (own, other):
        remove_placement_group(kept)
