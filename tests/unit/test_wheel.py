"""The package as it is installed from a wheel: complete, and at home in any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, qa_ray
from qa_ray.cli.console import main
assert qa_ray.__file__.startswith(sys.argv[1]), qa_ray.__file__
sys.exit(main(["train", "sample", "--dry-run"]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    # The build leaves folders behind.
    shutil.copytree(ROOT / "qa_ray", source / "qa_ray", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "."]
    subprocess.run(command, cwd=source, check=True)
    [path] = source.glob("*.whl")
    return path


def test_wheel_holds_all_that_the_package_reads(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("qa_ray/")}
        [metadata] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    files = [path for path in (ROOT / "qa_ray").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert held == {str(path.relative_to(ROOT)) for path in files}
    assert "qa_ray/py.typed" in held
    assert Parser().parsestr(metadata)["License-Expression"] == "Apache-2.0"


def test_command_of_the_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        [scripts] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/entry_points.txt")]
    assert "qa-ray = qa_ray.cli.console:main" in scripts
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "site")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[optim]" in done.stdout
