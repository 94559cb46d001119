"""One command of each kind as the pages show it, made short by options behind it: a tiny model, two steps, a trial."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, Block, Command, blocks, jobs
from families import FAMILIES
from ray_runs import NAMES, questions, write_squad

pytestmark = pytest.mark.long

HERE = ["--cluster.local-cpus", "2", "--cluster.num-workers", "1"]
UNRECORDED = ["--tracking.no-enabled"]
SHORT = [
    *("--model.name", "tiny"),
    *("--window.max-length", "128", "--window.stride", "8", "--batch.size", "4"),
    *("--train.epochs", "1", "--train.max-steps", "2", "--train.precision", "fp32"),
    *HERE,
]
SHORT_RUN = ["--data.hub", "None", "--data.train", "train.jsonl", "--data.validation", "dev.jsonl", *SHORT]
TINY = """
recipe = "minilm"
model.name = "tiny"
window = {max_length = 128, stride = 8}
train = {epochs = 1, max_steps = 2, precision = "fp32"}
cluster = {local_cpus = 2, num_workers = 1}
tracking.enabled = false
"""


def own_questions(number: int) -> list[dict[str, object]]:
    """Rows with plain-text answers and where they start."""
    rows = [row for row in questions(NAMES) if row["text"]]
    return [
        {
            "id": str(place),
            "question": row["question"],
            "context": row["context"],
            "answers": row["text"],
            "answer_start": str(row["context"]).index(str(row["text"])),
        }
        for place, row in enumerate((rows * number)[:number])
    ]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stranger's 200 questions, the tiny model, and what else the commands name."""
    folder = tmp_path_factory.mktemp("desk")
    FAMILIES["bert"].save(folder / "tiny")
    rows = [json.dumps(row) + "\n" for row in own_questions(200)]
    for name, lines in (("questions.jsonl", rows), ("train.jsonl", rows[:160]), ("dev.jsonl", rows[160:])):
        (folder / name).write_text("".join(lines))
    write_squad(folder / "train-v1.1.json", NAMES[:7])
    (folder / "tiny.toml").write_text(TINY)
    return folder


def run(desk: Path, job: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a job in `desk`, as somebody who is not logged in to the Hub."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_TOKEN_PATH")}
    environment |= {"HF_HOME": str(desk / "hub"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "qa_ray.cli", job, *words]
    return subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, check=False)


def run_shown(desk: Path, command: Command, *behind: str) -> str:
    """Run a command of a page with more options; returns what it shows."""
    assert command.job is not None
    ended = run(desk, command.job[0], *command.job[1], *behind)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def reported(desk: Path) -> Path:
    """The commands at the top of README.md, from the questions on; returns the report that the last one opens."""
    [first] = [block for block in blocks("bash") if block.page == "README.md" and "git clone" in block.text]
    show = first.text.splitlines()[-1]
    [train] = [command for command in jobs("train") if command.page == "README.md" and "mine" in command.words]
    run_shown(desk, train, *SHORT, *UNRECORDED)
    return desk / show.split()[1]


def test_stranger_gets_from_questions_to_a_report_with_the_commands_of_the_readme(reported: Path) -> None:
    assert reported.is_file()
    # A fifth of ten contexts.
    assert "40 questions" in reported.read_text(encoding="utf-8")


@pytest.mark.usefixtures("reported")
def test_model_is_evaluated_against_another(desk: Path) -> None:
    shown = next(command for command in jobs("evaluate") if "--against" in command.words)
    run_shown(desk, shown, "--data", "dev.jsonl", "--against", "runs/mine", *HERE)
    assert {path.name for path in (desk / "comparison").iterdir()} >= {"report.html", "comparison.json", "metrics.json"}


@pytest.mark.usefixtures("reported")
def test_model_is_asked(desk: Path) -> None:
    shown = run_shown(desk, jobs("ask")[0])
    assert re.search(r"\d%  \S", shown), "a probability, and the answer"


@pytest.mark.usefixtures("reported")
def test_questions_are_answered(desk: Path) -> None:
    run_shown(desk, jobs("predict")[0], "--out-format", "jsonl", *HERE)
    parts = list((desk / "answers" / "answers").glob("part-*"))
    assert sum(len(path.read_text().splitlines()) for path in parts) == 200


@pytest.mark.usefixtures("reported")
def test_model_is_not_published_without_a_token_and_that_is_said(desk: Path) -> None:
    job = jobs("publish")[0].job
    assert job is not None
    ended = run(desk, *(job[0], *job[1]))
    assert ended.returncode == 1
    assert "token" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.usefixtures("reported")
def test_data_are_inspected(desk: Path) -> None:
    run_shown(desk, jobs("inspect")[0], *SHORT_RUN, "--out", "looked-at")
    assert {path.name for path in (desk / "looked-at").iterdir()} == {"data.html", "data.json"}


@pytest.mark.usefixtures("reported")
def test_doctor_finds_nothing_wrong(desk: Path) -> None:
    shown = run_shown(desk, jobs("doctor")[0], *SHORT_RUN, *UNRECORDED)
    assert "12 checks" in shown


@pytest.mark.usefixtures("reported")
def test_sweep_has_a_report(desk: Path) -> None:
    shown = jobs("tune")[0]
    run_shown(
        desk,
        shown,
        *SHORT_RUN,
        *("--run.name", "night", "--tune.num-trials", "1", "--tracking.no-enabled"),
        *("--space", "optim.learning_rate=loguniform(5e-5, 1e-3)", "window.stride=choice(8, 16)"),
    )
    assert (desk / "runs" / "night" / "report.html").is_file()


def test_benchmark_writes_its_results(desk: Path) -> None:
    [shown] = [command for command in jobs("benchmark") if "featurise" in command.words]
    run_shown(desk, shown, "--repeats", "1")
    assert "featurise" in (desk / "benchmark.json").read_text()


@pytest.mark.usefixtures("reported")
@pytest.mark.parametrize("block", [b for b in blocks("python") if "from qa_ray import" in b.text], ids=lambda b: b.page)
def test_python_of_the_pages_runs(block: Block, desk: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", block.text.replace('"minilm"', '"tiny.toml"')]
    ended = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
