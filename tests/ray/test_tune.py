"""Sweeps on a local cluster of two CPUs with a tiny model: what they do, what they leave, and what they survive."""

import dataclasses
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any

import pytest
import ray
from hub import connected_hub
from mlflow import MlflowClient
from mlflow.entities import Run
from ray_runs import NAMES, command, metrics_of, prepare, processes, small_config, training_workers, write_squad
from transformers import AutoModelForQuestionAnswering

from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import PublishOptions
from qa_ray.config.policies import BestBy
from qa_ray.errors import ConfigError
from qa_ray.publishing.publish import publish, run_at
from qa_ray.storage.checkpoint_store import MANIFEST
from qa_ray.storage.run_folder import OWNER
from qa_ray.tuning.driver import search
from qa_ray.tuning.options import SamplerKind, SweepConfig, TuneConfig
from qa_ray.tuning.report import summary
from qa_ray.tuning.trials import Status, SweepResult, TrialRecord

pytestmark = pytest.mark.long

# What Tune makes of the class TrialRun.
TRIAL_PROCESS = "ResourceTr"
# A stride that leaves no room, a learning rate that no loss survives, and one that learns nothing.
SPACE = ("window.stride=choice(124, 16)", "optim.learning_rate=choice(1e38, 1e-9)")
# Of the sweep whose driver is ended: time enough to stop in the middle.
NUM_STEPS = 80


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("tune"))


def sweep_config(place: Path) -> SweepConfig:
    config = small_config(
        place,
        "sweep",
        train={"epochs": 2},
        evaluate={"before_training": False, "best_by": BestBy.LOSS},
        checkpoint={"every_steps": 1},
        tracking={"registered_model": "swept"},
    )
    parts = {item.name: getattr(config, item.name) for item in dataclasses.fields(Config)}
    return SweepConfig(**parts, space=SPACE, tune=TuneConfig(sampler=SamplerKind.GRID, max_failures=1))


def wait_until(holds: Callable[[], object], sweep_runs: Callable[[], bool]) -> None:
    while not holds():
        assert sweep_runs(), "the sweep ended before what was waited for"
        time.sleep(0.01)


def step_saved(trial: Path) -> int:
    """Step of the newest checkpoint; a step is left out while the checkpoint before it is still being stored."""
    return max(
        (int(path.parent.name.removeprefix("step-")) for path in trial.glob(f"checkpoints/*/{MANIFEST}")), default=0
    )


@pytest.fixture(scope="module")
def swept(ray_cluster: None, place: Path) -> SweepResult:
    """A sweep whose data are gone before the first trial ends, and that loses this trial's process.

    Its workers hold all CPUs then: they must be given back before it can be tried again.
    """
    trials, ended = place / "runs" / "sweep" / "trials", threading.Event()

    def disturb() -> None:
        wait_until(lambda: step_saved(trials / "trial-000") >= 2, lambda: not ended.is_set())
        for split in ("train.json", "validation.json"):
            (place / split).rename(place / f"away-{split}")
        [trial] = processes(TRIAL_PROCESS)
        trial.kill()

    with ThreadPoolExecutor() as pool:
        disturbed = pool.submit(disturb)
        try:
            return search(sweep_config(place))
        finally:
            ended.set()
            disturbed.result()


@pytest.fixture
def store(place: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{place}/mlflow.db")


def runs_of(store: MlflowClient) -> dict[str, Run]:
    experiment = store.get_experiment_by_name("qa_ray").experiment_id
    return {run.info.run_name: run for run in store.search_runs([experiment])}


def only(swept: SweepResult, status: Status) -> TrialRecord:
    [found] = [trial for trial in swept.sweep.trials if trial.status is status]
    return found


def test_each_trial_ends_as_it_must(swept: SweepResult) -> None:
    trials = swept.sweep.trials
    finished, stopped, failed = (only(swept, one) for one in (Status.FINISHED, Status.STOPPED, Status.FAILED))
    assert swept.sweep.best == finished == trials[0]
    assert (finished.epochs, stopped.epochs, failed.epochs) == (2, 1, 0)
    assert stopped.parameters == {"window.stride": 16, "optim.learning_rate": 1e-9}
    assert "after epoch 1" in str(stopped.reason)
    pruned = [trial for trial in trials if trial.status is Status.PRUNED]
    assert [trial.parameters["window.stride"] for trial in pruned] == [124, 124]
    assert "window.stride=124 leaves no room for a question in window.max_length=128" in str(pruned[0].reason)


def test_trial_that_diverges_is_reported_with_its_reason_everywhere(
    swept: SweepResult, place: Path, store: MlflowClient
) -> None:
    failed = only(swept, Status.FAILED)
    reason = str(failed.reason)
    assert "training went astray at step" in reason
    assert "Try a lower optim.learning_rate" in reason
    row = next(line for line in summary(swept).splitlines() if line.startswith(failed.name))
    assert row.endswith(f"failed: {reason}")
    assert f"failed: {escape(reason)}" in (place / "runs" / "sweep" / "report.html").read_text()
    run = runs_of(store)[failed.name]
    assert run.info.status == "FAILED"
    assert run.data.tags["sweep.reason"] == reason


def test_lost_process_costs_no_step_twice(swept: SweepResult, place: Path) -> None:
    lines = metrics_of(place / "runs" / "sweep" / "trials" / "trial-000")
    assert [line["step"] for line in lines if line["phase"] == "train"] == list(range(1, 13))
    assert [line["step"] for line in lines if line["phase"] == "evaluate"] == [6, 12]


def test_later_trials_trained_on_data_whose_files_are_gone(swept: SweepResult, place: Path) -> None:
    assert not (place / "train.json").exists()
    stopped = only(swept, Status.STOPPED)
    assert stopped.parameters["window.stride"] != swept.sweep.trials[0].parameters["window.stride"]
    lines = metrics_of(place / "runs" / "sweep" / "trials" / stopped.name)
    assert [line["step"] for line in lines if line["phase"] == "train"][:6] == list(range(1, 7))
    assert stopped.seconds_to_first_step is not None


def test_sweep_leaves_no_process_and_all_its_cpus(swept: SweepResult) -> None:
    while ray.available_resources().get("CPU") != 2:
        time.sleep(0.1)  # given back soon after, or never
    assert not training_workers()
    assert not processes(TRIAL_PROCESS)


def test_best_trial_is_a_whole_run_that_can_be_published(
    swept: SweepResult, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "runs" / "sweep" / "trials" / "trial-000"
    assert swept.best.folder == str(folder)
    AutoModelForQuestionAnswering.from_pretrained(folder / "model")
    with connected_hub(monkeypatch) as hub:
        publish(run_at(str(folder)), PublishOptions(repo_id="somebody/swept"))
        files = hub.repos["somebody/swept"].branches["main"][-1].files
    assert files["model.safetensors"] == (folder / "model" / "model.safetensors").read_bytes()
    assert not list((place / "runs" / "sweep" / "trials").glob("*/checkpoints"))
    said = summary(swept)
    assert f"qa-ray publish '{folder}'" in said
    assert "Trials with their values" in (place / "runs" / "sweep" / "report.html").read_text()


def test_mlflow_has_the_sweep_its_trials_and_one_best_model(swept: SweepResult, store: MlflowClient) -> None:
    runs = runs_of(store)
    assert set(runs) == {"sweep", *(f"trial-{number:03d}" for number in range(5))}
    parent = runs.pop("sweep")
    assert parent.info.status == "FINISHED"
    assert parent.data.params["space.window.stride"] == "choice(124, 16)"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert {name: run.data.tags["sweep.status"] for name, run in runs.items()} == {
        trial.name: trial.status for trial in swept.sweep.trials
    }
    assert [name for name, run in runs.items() if "sweep.best" in run.data.tags] == ["trial-000"]
    assert parent.data.tags["sweep.best_run_id"] == runs["trial-000"].info.run_id
    assert runs[only(swept, Status.STOPPED).name].data.params["optim.learning_rate"] == "1e-09"
    assert {item.path for item in store.list_artifacts(parent.info.run_id, "sweep")} >= {"sweep/report.html"}
    [version] = store.search_model_versions("name = 'swept'")
    assert version.run_id == runs["trial-000"].info.run_id
    assert len(store.search_logged_models([parent.info.experiment_id])) == 1


def test_finished_sweep_is_shown_again_and_nothing_is_done(swept: SweepResult, place: Path) -> None:
    trials = place / "runs" / "sweep" / "trials"
    before = {path: path.stat().st_mtime_ns for path in trials.rglob("*") if path.is_file()}
    # Its data could not be read any more.
    again = search(sweep_config(place))
    assert again.sweep.trials == swept.sweep.trials
    assert again.best.best == swept.best.best
    assert {path: path.stat().st_mtime_ns for path in trials.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": SPACE[:1]}, r"space: \{.*begun with other settings|begun with other settings \(space"),
        ({"tune": TuneConfig(sampler=SamplerKind.GRID, grace=2)}, r"grace: 1\.0 -> 2"),
        ({"train": {"epochs": 3}}, r"epochs: 2 -> 3"),
        ({"batch": {"size": 8}}, r"batch\.size: 4 -> 8"),
    ],
    ids=["space", "scheduler", "epochs", "a field that is not searched"],
)
def test_sweep_goes_on_only_where_scores_can_be_compared(
    swept: SweepResult, place: Path, changes: dict[str, Any], words: str
) -> None:
    config = sweep_config(place)
    replaced = {
        name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    with pytest.raises(ConfigError, match=words):
        search(dataclasses.replace(config, **replaced))


def sweep_command(place: Path, address: str) -> list[str]:
    """Three trials as a job of its own, the first a short one, with a checkpoint after every step."""
    # The data of the other sweep are gone.
    train = write_squad(place / "many.json", NAMES * 20)
    data = {"data.train": train, "data.validation": place / "away-validation.json"}
    length = {"train.epochs": 1, "train.max-steps": 2, "cluster.address": address}
    python, _, *arguments = command(place, "ended", data | length)
    script = Path(__file__).parents[2] / "jobs" / "tune.py"
    space = ["--space", "optim.learning_rate=loguniform(1e-4, 1e-2)", f"train.max_steps=choice({NUM_STEPS})"]
    options = ["--tune.num-trials", "3", "--tune.sampler", "random", "--tune.scheduler", "none"]
    return [python, str(script), *arguments, *options, "--tune.max-failures", "1", "--tune.keep-checkpoints", *space]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def running(job: subprocess.Popen[str]) -> Callable[[], bool]:
    def check() -> bool:
        return job.poll() is None or pytest.fail(f"the sweep ended before what was waited for: {job.communicate()[1]}")

    return check


def test_sweep_whose_driver_is_ended_goes_on_with_the_same_command(swept: SweepResult, place: Path) -> None:
    trials = place / "runs" / "ended" / "trials"
    arguments = sweep_command(place, ray.get_runtime_context().gcs_address)
    job = start(arguments)
    # The second trial finds its place taken, each time that it is tried.
    wait_until((trials / "trial-000").exists, running(job))
    (trials / "trial-001").touch()
    wait_until(lambda: step_saved(trials / "trial-002") >= 2, running(job))
    job.kill()
    _, said = job.communicate()
    assert "trial-001 failed and is tried again: StorageError: run.storage_path=" in said
    assert "Traceback" not in said
    finished = (trials / "trial-000" / "result.json").stat().st_mtime_ns
    owner = trials / "trial-002" / OWNER
    before = owner.read_bytes()
    again = start(arguments)
    # Until then, workers of the job that was killed may make a few more steps.
    wait_until(lambda: owner.read_bytes() != before, running(again))
    reached = step_saved(trials / "trial-002")
    wait_until(lambda: step_saved(trials / "trial-002") > reached, running(again))
    again.send_signal(signal.SIGTERM)
    _, said = again.communicate()
    assert again.returncode == 128 + signal.SIGTERM
    assert "stopped after 2 of 3 trials: run the same command with --run.name ended to go on" in said
    assert "Traceback" not in said
    last = start(arguments)
    shown, said = last.communicate()
    assert last.returncode == 0, said
    assert "trial-002" in said
    assert "tokenised once for all trials" in said
    assert "trial-000:" not in said
    assert "trial-001:" not in said
    assert (trials / "trial-000" / "result.json").stat().st_mtime_ns == finished
    lines = metrics_of(trials / "trial-002")
    assert [line["step"] for line in lines if line["phase"] == "train"] == list(range(1, NUM_STEPS + 1))
    records = json.loads((trials.parent / "trials.json").read_text())
    assert [record["status"] for record in records] == ["finished", "failed", "finished"]
    assert "finished, best" in shown
    assert "failed: StorageError: run.storage_path=" in shown
