"""What a person sees while a job runs: every line is one of the project's own, and the last ones can be used."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ray_runs import command, prepare

ROOT = Path(__file__).parents[2]
# The form of each line: of those that come while a job works, and of those that it ends with.
TRAINING = (
    r"(train|validation): \d+ questions in \d+ windows",
    r"\S+ has no question-answering head: a new one is trained from scratch",
    r"step \d+: exact_match [\d.]+, f1 [\d.]+, loss [\d.]+",
    r"train: +\d+% \d+/\d+ \[.*\]",
    # On a busy machine.
    r"step \d+ is not saved: the checkpoint before it is still being stored",
)
SUMMARY = (
    r"Some validation questions, and what the model answers:",
    r"  (right  |in part|wrong  ) .*\?",
    r" {10}(no answer|expected: .*|.*\[\[.+\]\].*)",
    r" +exact_match .*",
    r"(before|after) +[\d .]+",
    r"(run|model|answers|report) +/\S+",
    r"MLflow  run \w+; look at it with: mlflow ui .*",
    r" {8}models:/\S+",
    r"Ask the model a question:",
    r"  \S*qa-ray ask \S+ '.*\?' --text '.*'",
)
DATA = r"/\S+: 1 file, JSON of paragraphs"
EVALUATION = (
    r"\S+: \d+ questions in \d+ windows",
    r" +percent  95% interval",
    r"(exact_match|f1|HasAns_exact|HasAns_f1|NoAns_exact|NoAns_f1) +[\d.]+  \[.*\]",
    r"/\S+",
    r"   (\d+ questions, loss|no-answer threshold) .*",
    r"(report|answers) +/\S+",
)
PREDICTION = (
    r"/\S+: 1 worker, each with 1 CPU",
    r"predict: +\d+% \[.*\]",
    r"\d+ questions answered in \d+ s, [\d.]+ a second",
    r"0 of them have a reason in place of an answer",
    r"\d+ rows in \d+ files: /\S+",
)
SWEEP = (
    r"tokenised once for all trials: .*",
    r"2 trials of up to 1 epochs, 1 at once",
    r"trial-00[01]: .*",
    r"trial +.*",
    r"trial-00[01] .*",
    r"No trial was better than the default setting .*|trial-00[01] has .*",
    r"Trials that were stopped had not come to the end of .*",
    r"(sweep|best|model|answers|report) +/\S+",
    r"MLflow  not recorded .*",
    r"Publish the best model with:",
    r"  qa-ray publish '/\S+' --repo-id USER/NAME",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="module")
def shown_by_training(place: Path) -> str:
    words = [word for word in command(place, "first") if word != "--tracking.no-enabled"]
    return run(place, words)


def run(place: Path, words: list[str]) -> str:
    """Run a job as somebody does who has never run one, and return all that it shows."""
    home = place / "home"
    home.mkdir(exist_ok=True)
    # Set by the tests' own cluster.
    usual = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    told = {"HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db"}
    done = subprocess.run(
        words, env=usual | told, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def job(name: str, *words: object) -> list[str]:
    options = ("--cluster.local-cpus", 2, "--cluster.num-workers", 1, "--cluster.cpus-per-worker", 1)
    return [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, (*words, *options))]


def strangers(shown: str, *forms: str) -> list[str]:
    """Lines that have none of these forms."""
    known = re.compile("|".join(f"(?:{form})" for form in ("", DATA, *forms)))
    return [line for line in shown.splitlines() if not known.fullmatch(line)]


def test_training_shows_its_own_lines_only(shown_by_training: str, place: Path) -> None:
    assert strangers(shown_by_training, *TRAINING, *SUMMARY) == []
    lines = shown_by_training.splitlines()
    assert sum(line.startswith("train: ") and "%" in line for line in lines) <= 11
    assert sum(line.startswith(("  right", "  in part", "  wrong")) for line in lines) == 5
    assert shlex.split(lines[-1])[2] == "runs/first"
    assert (place / "runs" / "first" / "evaluation" / "report.html").is_file()


@pytest.mark.long
def test_evaluation_shows_its_own_lines_only(shown_by_training: str, place: Path) -> None:
    words = job("evaluate", place / "runs" / "first", "--data", place / "validation.json", "--out", place / "evaluated")
    assert strangers(run(place, words), *EVALUATION) == []


@pytest.mark.long
def test_prediction_shows_its_own_lines_only(shown_by_training: str, place: Path) -> None:
    words = job("predict", place / "runs" / "first", "--data", place / "validation.json", "--out", place / "answers")
    assert strangers(run(place, words), *PREDICTION) == []


@pytest.mark.long
def test_sweep_shows_its_own_lines_only(place: Path) -> None:
    python, _, *words = command(place, "night", {"train.epochs": 1})
    options = ["--tune.num-trials", "2", "--space", "optim.learning_rate=loguniform(1e-4, 1e-2)"]
    shown = run(place, [python, str(ROOT / "jobs" / "tune.py"), *words, *options])
    assert strangers(shown, *SWEEP) == []
    assert "trial-001: 100% 6/6 steps" in shown
