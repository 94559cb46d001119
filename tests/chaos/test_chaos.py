"""Fault injection does what it says: a run that is hit recovers, and a run that ends otherwise is seen."""

import contextlib
import json
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from ray_runs import outcome_of
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from chaos.__main__ import Options, inject, plan
from chaos.checkpoints import Damage, Stage, damage_newest, is_whole, newest_whole, next_loaded, under_way
from chaos.memory import CAPACITY, take
from chaos.record import due, recorded
from chaos.report import Kill, Moment, Report, RunEnd, Setting, Victim
from chaos.run import trained
from qa_ray.errors import ConfigError
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import RunFolder, checkpoint_name
from qa_ray.storage.staging import Staging


@pytest.mark.long
def test_run_whose_worker_is_killed_ends_as_the_reference_run() -> None:
    report = inject(Options(kills=1, victims=(Victim.WORKER,), moments=(Moment.STEPS,), epochs=2))
    assert [(kill.victim, kill.moment, kill.recovered) for kill in report.kills] == [("worker", "steps", True)]
    assert [run.differing for run in report.runs] == [[]]
    assert set(report.broken_promises().values()) == {0}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a finished run of two steps left."""
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "evaluation").mkdir()
    save_file({"weight": torch.ones(2)}, folder / "model" / "model.safetensors")
    (folder / "evaluation" / "predictions.json").write_text("{}")
    lines = [{"time": step, "phase": "train", "step": step, "train_loss": 1 / step} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "result.json").write_text(json.dumps({"ledger": "both batches"}))
    return folder


@pytest.fixture
def reference(run: Path) -> dict[str, Any]:
    return outcome_of(run)


@pytest.mark.parametrize(
    ("file", "before", "after", "differing"),
    [
        ("metrics.jsonl", '"time": 1', '"time": 7', []),
        ("metrics.jsonl", '{"time": 2, "phase": "train", "step": 2, "train_loss": 0.5}\n', "", ["metrics"]),
        ("metrics.jsonl", '"step": 2', '"step": 1', ["metrics"]),
        ("metrics.jsonl", "0.5", "0.5000000000000001", ["metrics"]),
        ("evaluation/predictions.json", "{}", '{"q": "a"}', ["predictions"]),
        ("result.json", "both batches", "another order", ["ledger"]),
    ],
    ids=["times", "step missing", "step twice", "loss in its last bit", "predictions", "ledger"],
)
def test_run_that_ended_otherwise_is_seen(
    run: Path, reference: dict[str, Any], file: str, before: str, after: str, differing: list[str]
) -> None:
    content = (run / file).read_text()
    assert before in content
    (run / file).write_text(content.replace(before, after))
    report = Report(runs=[RunEnd.of(run, [], reference)])
    assert report.runs[0].differing == differing
    assert report.broken_promises()["runs that did not end as the reference run"] == bool(differing)


def test_weights_that_differ_in_a_bit_are_seen(run: Path, reference: dict[str, Any]) -> None:
    save_file({"weight": torch.tensor([1.0, 1.0000001])}, run / "model" / "model.safetensors")
    assert RunEnd.of(run, [], reference).differing == ["weights"]


def test_kills_without_recovery_and_runs_without_end_are_seen(run: Path, reference: dict[str, Any]) -> None:
    report = Report([Kill(Victim.NODE, Moment.STEPS)], [RunEnd.of(run, ["no step for 300 s"], reference)])
    assert report.broken_promises()["kills not recovered"] == 1
    assert report.broken_promises()["runs that did not end as the reference run"] == 1
    assert "| node | 0 | 1 | 0 | 0 | 0 | 1 |  |" in report.text()
    assert "run: no step for 300 s" in report.text()


@pytest.mark.parametrize("damage", Damage)
def test_damaged_checkpoint_is_told_from_a_whole_one(tmp_path: Path, damage: Damage) -> None:
    (tmp_path / "source" / "model").mkdir(parents=True)
    (tmp_path / "source" / "model" / "model.safetensors").write_bytes(b"weights")
    run = tmp_path / "run"
    store = CheckpointStore(RunFolder(str(tmp_path), "run"))
    for step in (4, 8):
        store.publish(checkpoint_name(step), tmp_path / "source")
    assert newest_whole(run) == 8
    assert damage_newest(run, damage, random.Random(0))
    assert newest_whole(run) == 4
    assert [is_whole(run / "checkpoints" / checkpoint_name(step)) for step in (4, 8, 9)] == [True, False, None]


def test_checkpoint_is_written_then_stored_then_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run, stored = tmp_path / "run", tmp_path / "run" / "checkpoints" / checkpoint_name(4)
    moments: list[Stage | None] = []
    assert under_way(run, tmp_path) is None
    staging = Staging(RunFolder(str(tmp_path), "run"), "group")
    staging.make(f"{checkpoint_name(4)}-evaluated", lambda _: moments.append(under_way(run, tmp_path)))
    assert moments == [Stage.WRITING]
    assert under_way(run, tmp_path) is Stage.STORING
    stored.mkdir(parents=True)
    assert under_way(run, tmp_path) is Stage.STORING
    (stored / "manifest.json").write_text('{"files": {}}')
    assert under_way(run, tmp_path) is None
    assert next_loaded(run, tmp_path) == 4
    Staging(RunFolder(str(tmp_path), "another"), "group").make(checkpoint_name(9), lambda folder: None)
    assert under_way(run, tmp_path) is None
    assert next_loaded(run, tmp_path) == 4
    staging.make(f"{checkpoint_name(6)}", lambda folder: None)
    assert next_loaded(run, tmp_path) == 6


def test_plan_holds_every_pair_as_often_and_follows_the_seed() -> None:
    number = len(Options().pairs)
    kills = plan(Options(kills=2 * number))
    pairs = [(kill.victim, kill.moment) for kill in kills]
    assert set(pairs[:number]) == set(pairs[number:]) == set(Options().pairs)
    assert {victim for victim, _ in pairs} == set(Victim)
    assert kills == plan(Options(kills=2 * number))
    assert kills != plan(Options(kills=2 * number, seed=1))
    assert sum(kill.damage is not None for kill in kills) == 5


def test_what_cannot_be_hit_is_not_planned() -> None:
    assert Options(victims=(Victim.MEMORY, Victim.JOB), moments=(Moment.START,)).pairs == [(Victim.JOB, Moment.START)]
    with pytest.raises(ConfigError, match="--victims cannot be hit in any of --moments"):
        Options(victims=(Victim.SERVER,), moments=(Moment.START,))


def test_elastic_run_that_trained_a_step_twice_or_other_batches_is_seen(run: Path) -> None:
    foretold = {"ledger": "both batches", "steps": [1, 2]}
    assert RunEnd.of(run, [], foretold, setting=Setting.ELASTIC, outcome=trained).differing == []
    lines = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(lines + lines.splitlines()[1] + "\n")
    (run / "result.json").write_text(json.dumps({"ledger": "another batch"}))
    assert RunEnd.of(run, [], foretold, setting=Setting.ELASTIC, outcome=trained).differing == ["ledger", "steps"]


def test_record_that_lacks_a_point_or_has_one_twice_is_seen(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    run_id = client.create_run(client.create_experiment("chaos")).info.run_id
    (tmp_path / "tracking.json").write_text(json.dumps({"run_id": run_id}))
    lines = [
        {"time": step, "phase": "train", "step": step, "train_loss": 1 / step, "tokens_per_second": 5 * step}
        for step in (1, 2)
    ]
    for step, speed in ((2, 70), (1, 60)):
        client.log_metric(run_id, "tokens_per_second", speed, step=step)
    client.log_metric(run_id, "train_loss", 1.0, step=1)
    assert recorded(uri, tmp_path)["tokens_per_second"] == due(lines)["tokens_per_second"]
    assert recorded(uri, tmp_path) != due(lines)
    client.log_metric(run_id, "train_loss", 0.5, step=2)
    assert recorded(uri, tmp_path) == due(lines)
    client.log_metric(run_id, "train_loss", 0.5, step=2)
    assert recorded(uri, tmp_path) != due(lines)


def test_planted_memory_holds_as_many_tokens_as_it_says_and_is_short_once(tmp_path: Path) -> None:
    shortage = tmp_path / "shortage"
    embedding = nn.Embedding(9, 2, padding_idx=0)
    hook = register_module_forward_pre_hook(partial(take, str(shortage)))
    try:
        for rows, width, fits in ((1, CAPACITY + 8, True), (2, CAPACITY // 2, True), (2, CAPACITY // 2 + 8, False)):
            with contextlib.nullcontext() if fits else pytest.raises(torch.OutOfMemoryError):
                embedding(torch.zeros(rows, width, dtype=torch.int64))
        shortage.touch()
        embedding(torch.zeros(2, 8, dtype=torch.int64))
        with pytest.raises(torch.OutOfMemoryError):
            embedding(torch.zeros(1, 8, dtype=torch.int64))
        embedding(torch.zeros(1, 8, dtype=torch.int64))
        shortage.touch()
        embedding.eval()(torch.zeros(9, CAPACITY, dtype=torch.int64))
    finally:
        hook.remove()
