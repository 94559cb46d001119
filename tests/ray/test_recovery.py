"""Runs that lose a worker, their driver or a checkpoint, or are asked to stop: they end as if nothing had happened."""

import json
import logging
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults import Ended, Killer, meanwhile, newest, wait_for_checkpoint
from pyarrow.fs import copy_files
from ray_runs import EVERY_STEP, command, metrics_of, outcome_of, small_config, steps_before

from qa_ray.config.policies import Resume
from qa_ray.errors import ConfigError, StorageError, TrainingError
from qa_ray.runs.conclusion import summary
from qa_ray.runs.driver import train
from qa_ray.storage.run_folder import RunFolder
from qa_ray.storage.staging import staging_place

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def lost(ray_cluster: None, place: Path) -> tuple[Path, str]:
    """Folder of a run that lost a worker and was not allowed to, and what was said."""
    run = place / "runs" / "lost"
    with meanwhile(Killer(run, step=1, victim=1)), pytest.raises(TrainingError) as raised:
        train(small_config(place, "lost", **EVERY_STEP, cluster={"max_failures": 0}))
    return run, str(raised.value)


def test_worker_lost_too_often_ends_the_run_in_words(lost: tuple[Path, str]) -> None:
    _, said = lost
    assert "a worker process was lost, and cluster.max_failures is reached" in said
    assert "--run.name lost to go on" in said


def test_killed_worker_changes_nothing_but_the_time(
    lost: tuple[Path, str], undisturbed: dict[str, Any], place: Path
) -> None:
    run, _ = lost
    # After the epoch that is the best: it must still be known when the last one is compared with it.
    killer = Killer(run, step=12, victim=0)
    begun_at = time.time()
    assert newest(run) < killer.step
    with meanwhile(killer):
        train(small_config(place, "lost", **EVERY_STEP))
    assert outcome_of(run) == undisturbed
    assert 1 in steps_before(run, begun_at)
    assert killer.step in steps_before(run, killer.killed_at)


def run_command(arguments: list[str]) -> subprocess.Popen[str]:
    # A process group of its own: a signal to it must not reach the test.
    return subprocess.Popen(
        arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def test_job_that_is_killed_goes_on_with_the_same_command(undisturbed: dict[str, Any], place: Path) -> None:
    run = place / "runs" / "driver-killed"
    arguments = command(place, run.name, {"evaluate.per-epoch": 2})
    job = run_command(arguments)
    wait_for_checkpoint(run, 2, job.poll)
    job.kill()
    killed_at = time.time()
    job.communicate()
    again = run_command(arguments)
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert "going on from the checkpoint step-" in said
    assert outcome_of(run) == undisturbed
    assert 2 in steps_before(run, killed_at)


@dataclass
class Stopped:
    """A job that got SIGTERM after its first epoch, and a copy of the run that it left."""

    run: Path
    copy: Path
    code: int
    said: str
    ended_at: float


@pytest.fixture(scope="module")
def stopped(place: Path) -> Stopped:
    run = place / "runs" / "stopped"
    # No checkpoint is due but those with an evaluation, after every three steps.
    job = run_command(command(place, run.name, {"checkpoint.every-steps": None, "evaluate.per-epoch": 2}))
    assert job.stderr
    wait_for_checkpoint(run, 6, job.poll)
    # Stopped while the signal is on its way: on a busy machine they would else be at the end before it arrives.
    below = psutil.Process(job.pid).children(recursive=True)
    workers = [process for process in below if "RayTrainWo" in process.name()]
    assert len(workers) == 2
    for worker in workers:
        worker.suspend()
    job.terminate()
    said = ""
    while "stopping: " not in said:
        line = job.stderr.readline()
        assert line, said
        said += line
    for worker in workers:
        worker.resume()
    said += job.communicate()[1]
    copy = Path(shutil.copytree(run, run.with_name("damaged")))
    return Stopped(run, copy, job.returncode, said, time.time())


def test_job_that_is_asked_to_stop_saves_at_once_and_goes_on_from_there(
    stopped: Stopped, undisturbed: dict[str, Any], place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = stopped.run
    step = newest(run)
    assert stopped.code == 128 + signal.SIGTERM
    assert f"stopped at step {step} of 18 after a checkpoint" in stopped.said
    assert f"--run.name {run.name} to go on" in stopped.said
    assert "Traceback" not in stopped.said
    train(small_config(place, run.name, **EVERY_STEP))
    assert f"going on from the checkpoint step-{step:08d}" in capfd.readouterr().err
    assert outcome_of(run) == undisturbed
    assert steps_before(run, stopped.ended_at) == list(range(1, step + 1))


def test_damaged_checkpoint_is_passed_over(
    stopped: Stopped, undisturbed: dict[str, Any], place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = stopped.copy
    *_, before, damaged = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    weights = run / "checkpoints" / damaged / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    train(small_config(place, run.name, **EVERY_STEP))
    said = capfd.readouterr().err
    assert f"checkpoint {damaged} of run.name=damaged is damaged" in said
    assert f"going on from the checkpoint {before}" in said
    assert outcome_of(run) == undisturbed


def test_newest_checkpoints_and_the_best_are_kept_and_nothing_else(undisturbed: dict[str, Any], place: Path) -> None:
    run = place / "runs" / "undisturbed"
    evaluated = [line for line in metrics_of(run) if line["phase"] == "evaluate" and line["step"]]
    best = max(evaluated, key=lambda line: line["eval_f1"])["step"]
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept[-1] == "step-00000018"
    # A step is not saved while the one before it is still being written: the newest but one may be any.
    assert set(kept) == {*kept[-2:], f"step-{best:08d}"}
    assert not staging_place(RunFolder.locate(small_config(place, run.name).run)).exists()


def test_finished_run_is_shown_and_trains_nothing(undisturbed: dict[str, Any], place: Path) -> None:
    run = place / "runs" / "undisturbed"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    result = train(small_config(place, "undisturbed", **EVERY_STEP))
    assert not result.trained_now
    assert "nothing was trained" in summary(result)
    best = max(line["eval_f1"] for line in metrics_of(run) if "eval_f1" in line and line["step"])
    assert f"{best:.2f}" in summary(result)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_resumed_run_refuses_what_would_make_it_another(undisturbed: dict[str, Any], place: Path) -> None:
    with pytest.raises(ConfigError, match=r"window\.stride: 8 -> 16.*another run\.name"):
        train(small_config(place, "undisturbed", **EVERY_STEP, window={"stride": 16}))
    with pytest.raises(StorageError, match="a run of this name exists"):
        train(small_config(place, "undisturbed", **EVERY_STEP, run={"resume": Resume.NEVER}))
    with pytest.raises(StorageError, match=r"run\.resume=required, but there is no run\.name=nobody"):
        train(small_config(place, "nobody", **EVERY_STEP, run={"resume": Resume.REQUIRED}))
    assert not (place / "runs" / "nobody").exists()


def test_finished_run_goes_on_for_more_epochs(
    undisturbed: dict[str, Any], place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(place / "runs" / "undisturbed", place / "runs" / "longer"))
    begun_at = time.time()
    with caplog.at_level(logging.INFO, "qa_ray"):
        result = train(small_config(place, "longer", **EVERY_STEP, train={"epochs": 4}, cluster={"num_workers": 1}))
    assert "train.epochs: 3 -> 4" in caplog.text
    assert "cluster.num_workers: 2 -> 1" in caplog.text
    assert result.trained_now
    assert [line["step"] for line in metrics_of(run) if line["phase"] == "train"] == list(range(1, 25))
    assert result.best["eval_f1"] == max(
        line["eval_f1"] for line in metrics_of(run) if line.get("eval_f1") and line["step"]
    )
    assert steps_before(run, begun_at) == list(range(1, 19))
    assert json.loads((run / "config.json").read_text())["train"]["epochs"] == 4


def test_storage_that_fails_ends_the_run_at_its_end_and_what_could_not_be_stored_is_stored_by_the_same_command(
    undisturbed: dict[str, Any], place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = place / "runs" / "unwritable"
    checkpoints, aside = run / "checkpoints", run / "aside"

    def fail(ended: Ended) -> None:
        # Each epoch's checkpoint is tried again and again from here on.
        wait_for_checkpoint(run, 7, ended)
        checkpoints.rename(aside)
        # A checkpoint that is just being written makes the folder anew.
        while not checkpoints.is_file():
            shutil.rmtree(checkpoints, ignore_errors=True)
            checkpoints.touch()

    with (
        meanwhile(fail),
        pytest.raises(StorageError, match=r"cannot be stored: their files are in .*run the same command again"),
    ):
        train(small_config(place, "unwritable", **EVERY_STEP))
    # Every step was trained all the same.
    assert [line["step"] for line in metrics_of(run) if line["phase"] == "train"] == list(range(1, 19))
    checkpoints.unlink()
    aside.rename(checkpoints)
    assert 7 <= newest(run) < 18
    ended_at = time.time()
    capfd.readouterr()
    train(small_config(place, "unwritable", **EVERY_STEP))
    assert "going on from the checkpoint step-00000018" in capfd.readouterr().err
    assert steps_before(run, ended_at) == list(range(1, 19)), "no step is made again"
    assert outcome_of(run) == undisturbed
    assert not staging_place(RunFolder.locate(small_config(place, run.name).run)).exists()


def test_run_on_s3_is_the_same_and_goes_on_there(
    undisturbed: dict[str, Any], place: Path, s3_folder: str, tmp_path: Path
) -> None:
    settings = {**EVERY_STEP, "run": {"storage_path": s3_folder}}
    train(small_config(place, "far", **settings, train={"epochs": 1}))
    begun_at = time.time()
    result = train(small_config(place, "far", **settings))
    assert result.trained_now
    filesystem, path = RunFolder(s3_folder, "far").filesystem()
    copy_files(path, str(tmp_path), source_filesystem=filesystem)
    steps = [line["step"] for line in metrics_of(tmp_path) if line["phase"] == "train"]
    assert steps == list(range(1, 19))
    assert steps_before(tmp_path, begun_at) == list(range(1, 7))
    assert outcome_of(tmp_path)["ledger"] == undisturbed["ledger"]
    assert not train(small_config(place, "far", **settings)).trained_now
