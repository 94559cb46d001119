"""The benchmark runs every case at its smallest, and both sides of each comparison do the same work."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qa_ray.cli import exit_code
from qa_ray.config.recipes import minilm
from qa_ray.data.squad import to_squad
from qa_ray.schema import Answer, Passage, Question

JOBS = Path(__file__).parents[2] / "jobs"
CASES = {
    "featurise",
    "train MiniLM",
    "decode trained",
    "decode random",
    "checkpoint",
    "driver",
    "predict fp32",
    "predict auto",
}


def passage(index):
    """A context of a few sentences, or, once in five, one that needs several windows."""
    facts = [f"The tower of Town{index} number {floor} has {floor + 3} floors." for floor in range(3 + index % 4)]
    context = " ".join(facts * (12 if index % 5 == 0 else 1))
    answer = f"{index % 3 + 3} floors"
    question = Question(f"q{index}", f"How tall is tower {index % 3}?", (Answer(answer, context.rindex(answer)),), "")
    return Passage(context, (question,))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "train.json"
    path.write_text(json.dumps(to_squad(map(passage, range(40)), "towers")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(data):
    out = data.parent / "benchmark.json"
    options = ["--data", str(data), "--threads", "1", "--steps", "1", "--repeats", "1", "--out", str(out)]
    # A process of its own: it sets threads, and starts and leaves a cluster.
    script = Path(__file__).with_name("small_benchmark.py")
    subprocess.run([sys.executable, str(script), *options], check=True, capture_output=True, text=True)
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.fixture
def jobs(monkeypatch):
    monkeypatch.syspath_prepend(str(JOBS))


def test_report_has_a_row_of_every_case_and_says_where_it_was_measured(report):
    assert {row["case"] for row in report["rows"]} == CASES
    assert report["machine"]["cores"] >= 1
    assert "torch" in report["machine"]["versions"]
    assert report["options"]["steps"] == 1
    assert all(0 <= share < 1 for share in report["padding_share"].values())


def test_both_sides_of_every_row_did_the_same_work(report):
    for row in report["rows"]:
        work = [[run["work"] for run in row[side]] for side in ("standard_runs", "ours_runs")]
        assert work[0] == work[1], row["case"]
        assert min(work[0]) > 0
        assert row["ratio"] == pytest.approx(row["ours_per_second"] / row["standard_per_second"])


def test_driver_trained_what_the_bare_loop_trained(report):
    details = next(row for row in report["rows"] if row["case"] == "driver")["details"]
    assert details["ours_train_loss"] == pytest.approx(details["standard_train_loss"], rel=1e-3)


@pytest.mark.usefixtures("jobs")
def test_windows_and_labels_of_the_standard_way_are_ours(data):
    from benchmarking.comparison import Material
    from benchmarking.standard import training_features

    material = Material.read(minilm(), str(data))
    window, collator = material.config.window, material.collator
    features = training_features(material.rows, material.tokenizer, window.max_length, window.stride, pad=False)
    assert len(features) == len(collator.windows) > len(material.rows)
    for item, feature in enumerate(features):
        batch = collator(np.array([item]))
        length = len(feature["input_ids"])
        assert batch.inputs["input_ids"][0, :length].tolist() == feature["input_ids"]
        assert int(batch.inputs["attention_mask"].sum()) == length
        labels = int(batch.start_positions[0]), int(batch.end_positions[0])
        assert labels == (feature["start_positions"], feature["end_positions"])


@pytest.mark.usefixtures("jobs")
def test_sampled_batches_are_full_and_hold_no_window_twice():
    from benchmarking.training import spread_batches

    lengths = np.random.default_rng(0).integers(20, 384, 1000)
    items = spread_batches(lengths, minilm(), 5)
    assert len(items) == len(set(items.tolist())) == 5 * minilm().batch.size
    assert lengths[items].mean() == pytest.approx(lengths.mean(), rel=0.05)


@pytest.mark.usefixtures("jobs")
def test_missing_data_is_told_in_a_line(tmp_path, capsys):
    from benchmark import Options, measure

    options = Options(data="nowhere.json", out=tmp_path / "out.json")
    assert exit_code(lambda: measure(options)) == 1
    assert capsys.readouterr().err == "error: --data=nowhere.json cannot be read: No such file or directory\n"


@pytest.fixture(scope="module")
def chaos(tmp_path_factory):
    out = tmp_path_factory.mktemp("chaos") / "chaos.json"
    options = ["--kills", "2", "--victims", "worker", "driver", "--moments", "steps", "--epochs", "2", "--seed", "1"]
    command = [sys.executable, str(JOBS / "benchmark.py"), "chaos", *options, "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(out.read_text(encoding="utf-8"))


def test_chaos_kills_as_planned_and_no_promise_is_broken(chaos):
    assert {kill["victim"] for kill in chaos["kills"]} == {"worker", "driver"}
    assert {kill["moment"] for kill in chaos["kills"]} == {"steps"}
    assert chaos["recovered"] == 2
    # A run that was hit at its end may have no step left to recover by.
    assert all(kill["seconds"] is None or kill["seconds"] > 0 for kill in chaos["kills"])
    assert all(run["finished"] and not run["differing"] for run in chaos["runs"])
    assert set(chaos["broken_promises"].values()) == {0}


@pytest.fixture
def left(jobs, tmp_path):
    """Folder of a finished run of two steps, what it left, and what the plan foretells."""
    from benchmarking.chaos_outcome import Expected, Outcome

    run = tmp_path / "run"
    for folder in ("model", "evaluation", "checkpoints/step-00000002/model"):
        (run / folder).mkdir(parents=True)
    (run / "model" / "model.safetensors").write_bytes(b"weights")
    (run / "evaluation" / "predictions.json").write_text("{}")
    lines = [{"time": step, "phase": "train", "step": step, "train_loss": 1 / step} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "result.json").write_text(json.dumps({"ledger": "both batches"}))
    return run, Outcome.read(run), Expected([np.arange(8), np.arange(8, 11)], "both batches")


def test_chaos_finds_nothing_wrong_with_a_run_that_differs_only_in_its_times(left):
    from benchmarking.chaos_report import Report, RunEnd

    run, calm, expected = left
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().replace('"time": 1', '"time": 7'))
    report = Report(runs=[RunEnd.of(run, [], calm, expected)])
    assert set(report.broken_promises().values()) == {0}


@pytest.mark.parametrize(
    ("file", "before", "after", "differing", "windows"),
    [
        ("metrics.jsonl", '{"time": 2, "phase": "train", "step": 2, "train_loss": 0.5}\n', "", "metrics", 3),
        ("metrics.jsonl", '"step": 2', '"step": 1', "metrics", 11),
        ("metrics.jsonl", "0.5", "0.5000000000000001", "metrics", 0),
        ("model/model.safetensors", "weights", "weightz", "weights", 0),
        ("evaluation/predictions.json", "{}", '{"q": "a"}', "predictions", 0),
        ("result.json", "both batches", "another order", "ledger", 1),
    ],
    ids=["step missing", "step twice", "loss in its last bit", "weights", "predictions", "ledger"],
)
def test_chaos_sees_a_run_that_ended_otherwise(left, file, before, after, differing, windows):
    from benchmarking.chaos_report import Report, RunEnd

    run, calm, expected = left
    content = (run / file).read_text()
    assert before in content
    (run / file).write_text(content.replace(before, after))
    broken = Report(runs=[RunEnd.of(run, [], calm, expected)])
    assert broken.runs[0].differing == [differing]
    assert broken.broken_promises()["runs that ended otherwise"] == 1
    assert broken.broken_promises()["windows lost or seen twice"] == windows


def test_chaos_sees_kills_without_recovery_runs_without_end_and_whole_checkpoints_passed_over(left):
    from benchmarking.chaos_report import Kill, Moment, Report, RunEnd, Victim

    run, calm, expected = left
    kill = Kill(Victim.DRIVER, Moment.STEPS, known=True, newest="step-00000008", followed=True, resumed="step-00000004")
    broken = Report([kill], [RunEnd.of(run, ["no step for 300 s"], calm, expected)], damaged_loaded=1).broken_promises()
    assert {promise for promise, times in broken.items() if times} == {
        "kills not recovered",
        "runs not finished",
        "damaged checkpoints loaded",
        "whole checkpoints passed over",
    }


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("number", range(3), ids=["bit flipped", "cut", "removed"])
def test_chaos_tells_a_damaged_checkpoint_from_a_whole_one(tmp_path, number):
    from benchmarking.chaos_outcome import Damage, damage_newest, is_whole, newest_whole

    from qa_ray.storage.checkpoint_store import CheckpointStore
    from qa_ray.storage.run_folder import RunFolder

    source = tmp_path / "source"
    (source / "model").mkdir(parents=True)
    (source / "model" / "model.safetensors").write_bytes(b"weights")
    store = CheckpointStore(RunFolder(str(tmp_path), "run"))
    for name in ("step-00000004", "step-00000008"):
        store.publish(name, source)
    assert newest_whole(tmp_path / "run") == "step-00000008"
    assert damage_newest(tmp_path / "run", list(Damage)[number], random.Random(0)) == "step-00000008"
    assert newest_whole(tmp_path / "run") == "step-00000004"
    places = [tmp_path / "run" / "checkpoints" / f"step-0000000{step}" for step in (4, 8, 9)]
    assert [is_whole(place) for place in places] == [True, False, None]


@pytest.mark.usefixtures("jobs")
def test_chaos_reads_restarts_and_steps_from_the_jobs_terminal():
    from benchmarking.chaos_job import Screen

    screen = Screen()
    screen.feed("\revaluate:  40%|####      | 12/30 [00:00<00:01,  9 windows/s]")
    assert screen.evaluating
    screen.feed("\rstep 0: exact_match 1.00, f1 2.00, loss 3.00\r\n\rtrain:   8%|8         | 5/60 [00:01<")
    assert (screen.evaluating, screen.step) == (False, 5)
    screen.feed("00:09,  5 steps/s]\rtrain:  10%|#         | 6/60 [00:01<00:09,  5 steps/s]\r\n")
    screen.feed("going on from the checkpoint step-00000004\r\n")
    screen.feed("\x1b[36m(RayTrainWorker pid=7)\x1b[0m going on from the checkpoint step-00000004\r\n")
    assert [(group.resumed, group.before) for group in screen.groups] == [(0, 0), (4, 6)]
    assert screen.groups[1].first_step is None
    screen.feed("\rtrain:  8%|8         | 5/60 [00:00<?, ? steps/s]")
    assert screen.groups[1].first_step is not None


@pytest.mark.usefixtures("jobs")
def test_chaos_plan_holds_every_pair_as_often_and_follows_the_seed():
    from benchmarking.chaos import Options, plan

    kills = plan(Options(kills=30))
    assert {(kill.victim, kill.moment) for kill in kills[:15]} == {(kill.victim, kill.moment) for kill in kills[15:]}
    assert kills == plan(Options(kills=30))
    assert kills != plan(Options(kills=30, seed=1))
    assert sum(kill.damage is not None for kill in kills) == 5
