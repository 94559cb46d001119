"""What an import brings with it, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"mlflow", "ray", "torch", "transformers"}
COMMAND = """
import contextlib, io
from qa_ray.cli.console import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
    main({words!r}.split())
assert {expected!r} in shown.getvalue(), shown.getvalue()
"""
LIGHT = {
    "": "qa-ray train",
    "train --help": "recipes:",
    "train sample --help": "--optim.learning-rate",
    "tune sample --help": "--tune.num-trials",
    "inspect sample --help": "--out",
    "doctor sample --help": "--optim.learning-rate",
    "evaluate --help": "--num-resamples",
    "predict --help": "--part-size",
    "serve --help": "--replicas",
    "ask --help": "QUESTION",
    "publish --help": "--repo-id",
    "benchmark --help": "--repeats",
    "train sample --dry-run": "[optim]",
    "tune sample --dry-run": "[tune]",
    "inspect sample --dry-run": "out = ",
    "doctor sample --dry-run": "[optim]",
    "schema": "learning_rate",
}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import qa_ray.answers", {"mlflow", "ray"}),
        ("import qa_ray.config.fine_tuning", HEAVY),
        ("import qa_ray.storage.run_folder", HEAVY),
        ("import qa_ray.data.windows", HEAVY),
        ("import qa_ray; qa_ray.recipes.sample(); dir(qa_ray)", HEAVY),
        ("from qa_ray import QuestionAnswerer", {"mlflow", "ray"}),
        ("import qa_ray.prediction.parts", HEAVY),
        ("import qa_ray.prediction.actor", {"mlflow", "ray.train", "ray.data"}),
        ("import qa_ray.runs.stream", HEAVY - {"ray"} | {"ray.train", "ray.data"}),
        ("import qa_ray.serving.gateway", HEAVY - {"ray"} | {"ray.train", "ray.data"}),
        ("import qa_ray.runs.work_queue", HEAVY - {"ray"} | {"ray.train", "ray.data"}),
        *((COMMAND.format(words=words, expected=expected), HEAVY) for words, expected in LIGHT.items()),
    ],
    ids=[
        "answers",
        "config",
        "storage",
        "data",
        "package",
        "answerer",
        "reader",
        "actor",
        "stream",
        "gateway",
        "queue",
        *(words or "overview" for words in LIGHT),
    ],
)
def test_import_does_not_bring_what_it_does_not_need(code: str, absent: set[str]) -> None:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & absent
