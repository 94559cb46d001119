"""The scripts of jobs/ run from anywhere, and hide no library that has the name of one of them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted((ROOT / "jobs").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
@pytest.mark.parametrize("folder", [ROOT, ROOT / "jobs"], ids=["root", "beside it"])
def test_script_shows_its_help(script: Path, folder: Path) -> None:
    command = [sys.executable, str(script.relative_to(folder)), "--help"]
    path = {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"usage: qa-ray {script.stem} ")


def test_standard_library_is_found_behind_the_script_of_its_name(tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text(
        "import inspect, sys\nprint(inspect.__file__, inspect.signature(print).parameters['sep'].default)"
    )
    (tmp_path / "inspect.py").write_text((ROOT / "jobs" / "inspect.py").read_text())
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    place, default = ended.stdout.rstrip("\n").split(" ", 1)
    assert Path(place).parent == Path(subprocess.__file__).parent
    assert default == " "
