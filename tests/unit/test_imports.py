"""What an import brings with it, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"mlflow", "ray", "torch", "transformers"}
HELP = """
import contextlib, io, runpy
sys.argv = ["train.py", "sample", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
    runpy.run_path("jobs/train.py", run_name="__main__")
assert "usage: train.py" in shown.getvalue()
"""


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import qa_ray.answers", {"mlflow", "ray"}),
        ("import qa_ray.config.fine_tuning", HEAVY),
        ("import qa_ray.storage.run_folder", HEAVY),
        ("import qa_ray.data.windows", HEAVY),
        (HELP, {"mlflow", "torch", "transformers"}),
    ],
    ids=["answers", "config", "storage", "data", "help"],
)
def test_import_does_not_bring_what_it_does_not_need(code: str, absent: set[str]) -> None:
    script = f"import sys\n{code}\nprint(*({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & absent
