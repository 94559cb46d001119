"""A test run's last lines, from runs of pytest with the project's own settings and conftest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = {
    "unit/test_unit.py": """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_passes(number): pass

@pytest.mark.skipif(True, reason="needs a CUDA GPU")
@pytest.mark.parametrize("number", range(2))
def test_on_a_gpu(number): pass

def test_of_a_database(): pytest.skip("POSTGRESQL names no database")
""",
    "ray/test_ray.py": """
import pytest

def test_on_ray(): pass

@pytest.mark.long
def test_sweep(): pass
""",
}
FAULTS = """
import pytest

def test_fails(): assert False

@pytest.fixture
def broken():
    yield
    raise OSError

def test_passes_and_cannot_be_taken_down(broken): pass
"""


@pytest.fixture
def run(tmp_path):
    """Run pytest on TESTS and return what it wrote."""

    def run(*arguments):
        for name, text in TESTS.items():
            path = tmp_path / "tests" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        own = ["-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-p", "conftest", "-p", "no:cacheprovider"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *own, *arguments],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.splitlines()

    return run


def test_run_ends_with_what_was_tested_and_what_was_left_out_and_why(run):
    tested, left_out, pytests_own = run("tests")[-3:]
    assert tested == "Tested: 3 unit, 1 ray"
    assert left_out == "Left out: 2 (needs a CUDA GPU); 1 (POSTGRESQL names no database); 1 long (make test-all)"
    assert "4 passed, 3 skipped, 1 deselected" in pytests_own


@pytest.mark.parametrize(
    ("arguments", "tested", "left_out"),
    [
        (["-m", "long"], "1 ray", "7 (not chosen by -m)"),
        (["-m", "", "-k", "on_ray"], "1 ray", "7 (not chosen by -k)"),
        (["tests/ray", "-m", ""], "2 ray", "nothing"),
        (["tests/unit", "-k", "gpu"], "nothing", "4 (not chosen by -m and -k); 2 (needs a CUDA GPU)"),
    ],
    ids=["long", "keyword", "everything", "all-skipped"],
)
def test_lines_tell_of_this_run_alone(run, arguments, tested, left_out):
    assert run(*arguments)[-3:-1] == [f"Tested: {tested}", f"Left out: {left_out}"]


def test_failures_are_counted_once_each_and_stand_above(run, tmp_path):
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_faults.py").write_text(FAULTS)
    *above, tested, _, _ = run("tests/unit")
    assert tested == "Tested: 5 unit; 2 of them failed"
    assert any(line.startswith("FAILED tests/unit/test_faults.py::test_fails") for line in above)


def test_nothing_is_said_of_tests_that_were_only_listed(run):
    assert not any(line.startswith(("Tested", "Left out")) for line in run("tests", "--collect-only"))
