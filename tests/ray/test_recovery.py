"""Runs that lose a worker, their driver or a checkpoint, or are asked to stop: they end as if nothing had happened."""

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from pyarrow.fs import copy_files
from trips import command, metrics_of, outcome_of, prepare, trip_config

from qa_ray.errors import ConfigError, StorageError, TrainingError
from qa_ray.policies import Resume
from qa_ray.report import summary
from qa_ray.storage import RunFolder
from qa_ray.training.driver import train
from qa_ray.training.store import MANIFEST

EVERY_STEP = {"checkpoint": {"every_steps": 1}, "train": {"epochs": 3}, "tracking": {"enabled": False}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("recovery"))


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, place: Path) -> dict[str, Any]:
    train(trip_config(place, "undisturbed", **EVERY_STEP))
    return outcome_of(place / "runs" / "undisturbed")


def wait_for_checkpoint(run: Path, step: int) -> None:
    while not (run / "checkpoints" / f"step-{step:08d}" / MANIFEST).exists():
        time.sleep(0.01)


def workers() -> list[psutil.Process]:
    """The training workers of this process's cluster, and of no other on the machine."""
    session = ray._private.worker.global_worker.node.get_session_dir_path()
    found = [process for process in psutil.process_iter(["name"]) if "RayTrainWo" in process.info["name"]]
    return [process for process in found if session in " ".join(process.parent().cmdline())]


def meanwhile(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_killed_worker_changes_nothing_but_the_time(
    undisturbed: dict[str, Any], place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = place / "runs" / "worker-killed"
    killed = []

    def kill() -> None:
        for step, victim in ((2, 0), (9, 1)):
            wait_for_checkpoint(run, step)
            process = workers()[victim]
            process.kill()
            killed.append(process.pid)

    killer = meanwhile(kill)
    train(trip_config(place, "worker-killed", **EVERY_STEP))
    killer.join()
    assert len(set(killed)) == 2
    assert outcome_of(run) == undisturbed


def test_worker_lost_too_often_ends_the_run_in_words(ray_cluster: None, place: Path) -> None:
    run = place / "runs" / "lost"

    def kill() -> None:
        wait_for_checkpoint(run, 1)
        workers()[1].kill()

    killer = meanwhile(kill)
    with pytest.raises(TrainingError, match=r"a worker process was lost.*--run.name lost to go on"):
        train(trip_config(place, "lost", **EVERY_STEP, cluster={"max_failures": 0}))
    killer.join()


def run_command(arguments: list[str]) -> subprocess.Popen[str]:
    # A process group of its own: a signal to it must not reach the test.
    return subprocess.Popen(
        arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_job_that_is_ended_goes_on_with_the_same_command(
    undisturbed: dict[str, Any], place: Path, number: signal.Signals
) -> None:
    name = f"driver-{number.name}"
    arguments = command(place, name)
    job = run_command(arguments)
    wait_for_checkpoint(place / "runs" / name, 2)
    os.kill(job.pid, number)
    _, said = job.communicate()
    if number is signal.SIGKILL:
        assert job.returncode == -number
    else:
        assert job.returncode == 128 + number
        assert f"--run.name {name} to go on" in said
        assert "Traceback" not in said
    again = run_command(arguments)
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert "going on from the checkpoint step-" in said
    assert outcome_of(place / "runs" / name) == undisturbed


def test_finished_run_is_shown_and_trains_nothing(undisturbed: dict[str, Any], place: Path) -> None:
    run = place / "runs" / "undisturbed"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    result = train(trip_config(place, "undisturbed", **EVERY_STEP))
    assert not result.trained_now
    assert "nothing was trained" in summary(result)
    best = max(line["eval_f1"] for line in metrics_of(run) if "eval_f1" in line and line["step"])
    assert f"{best:.2f}" in summary(result)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_damaged_checkpoint_is_passed_over(
    undisturbed: dict[str, Any], place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = place / "runs" / "damaged"
    job = run_command([*command(place, "damaged"), "--checkpoint.keep", "99"])
    wait_for_checkpoint(run, 4)
    job.terminate()
    job.communicate()
    newest = max(path.parent for path in run.glob(f"checkpoints/*/{MANIFEST}"))
    weights = newest / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    train(trip_config(place, "damaged", **EVERY_STEP))
    said = capfd.readouterr().err
    assert f"{newest.name}" in said
    step = int(newest.name.removeprefix("step-"))
    assert f"going on from the checkpoint step-{step - 1:08d}" in said
    assert outcome_of(run) == undisturbed


def test_resumed_run_refuses_what_would_make_it_another(
    ray_cluster: None, place: Path, undisturbed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"window\.stride: 8 -> 16.*another run\.name"):
        train(trip_config(place, "undisturbed", **EVERY_STEP, window={"stride": 16}))
    with pytest.raises(StorageError, match="a run of this name exists"):
        train(trip_config(place, "undisturbed", **EVERY_STEP, run={"resume": Resume.NEVER}))
    with pytest.raises(StorageError, match=r"run\.resume=required, but there is no run\.name=nobody"):
        train(trip_config(place, "nobody", **EVERY_STEP, run={"resume": Resume.REQUIRED}))
    assert not (place / "runs" / "nobody").exists()


def test_finished_run_goes_on_for_more_epochs(ray_cluster: None, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"tracking": {"enabled": False}}
    train(trip_config(place, "longer", **settings, train={"epochs": 1}))
    with caplog.at_level(logging.INFO, "qa_ray"):
        result = train(trip_config(place, "longer", **settings, train={"epochs": 2}, cluster={"num_workers": 1}))
    assert "train.epochs: 1 -> 2" in caplog.text
    assert "cluster.num_workers: 2 -> 1" in caplog.text
    assert result.trained_now
    steps = [line["step"] for line in metrics_of(place / "runs" / "longer") if line["phase"] == "train"]
    assert steps == list(range(1, 13))
    assert json.loads((place / "runs" / "longer" / "config.json").read_text())["train"]["epochs"] == 2


def test_storage_that_fails_ends_the_run_at_its_end_and_keeps_the_last_good_checkpoint(
    undisturbed: dict[str, Any], place: Path
) -> None:
    run = place / "runs" / "unwritable"
    checkpoints, aside = run / "checkpoints", run / "aside"

    def fail() -> None:
        wait_for_checkpoint(run, 2)
        checkpoints.rename(aside)
        checkpoints.touch()

    failing = meanwhile(fail)
    with pytest.raises(StorageError, match=r"cannot be stored: their files are in .*run the same command again"):
        train(trip_config(place, "unwritable", **EVERY_STEP))
    failing.join()
    # Every step was trained all the same.
    assert [line["step"] for line in metrics_of(run) if line["phase"] == "train"] == list(range(1, 19))
    checkpoints.unlink()
    aside.rename(checkpoints)
    train(trip_config(place, "unwritable", **EVERY_STEP))
    assert outcome_of(run) == undisturbed


def test_run_on_s3_is_the_same_and_goes_on_there(
    undisturbed: dict[str, Any], place: Path, s3_folder: str, tmp_path: Path
) -> None:
    place_on_s3 = {"run": {"storage_path": s3_folder}}
    settings = {**EVERY_STEP, **place_on_s3}
    train(trip_config(place, "far", **settings | {"train": {"epochs": 1}}))
    result = train(trip_config(place, "far", **settings))
    assert result.trained_now
    filesystem, path = RunFolder(s3_folder, "far").filesystem()
    copy_files(path, str(tmp_path), source_filesystem=filesystem)
    steps = [line["step"] for line in metrics_of(tmp_path) if line["phase"] == "train"]
    assert steps == list(range(1, 19))
    assert outcome_of(tmp_path)["ledger"] == undisturbed["ledger"]
    assert not train(trip_config(place, "far", **settings)).trained_now
