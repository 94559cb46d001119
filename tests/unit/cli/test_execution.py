"""How a command ends: what it prints, and its exit code."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from qa_ray.cli.commands import run_configured
from qa_ray.cli.execution import exit_code, importing
from qa_ray.config.fine_tuning import Config
from qa_ray.errors import ConfigError, DataError, StoppedError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qa_ray.runs.connection.start_ray", lambda config: None)


@pytest.mark.usefixtures("no_ray")
def test_user_error_is_one_line_and_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: Config) -> str:
        raise DataError("train.json is missing: name another file")

    assert run_configured(fail, ["sample"], "job", "") == 1
    assert capsys.readouterr().err.strip().splitlines()[-1] == "error: train.json is missing: name another file"


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (None, 0, ""),
        (ConfigError("train.seed=-1 must not be negative"), 1, "error: train.seed=-1 must not be negative\n"),
        (StoppedError("stopped after a checkpoint", 143), 143, "stopped after a checkpoint\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=["nothing", "user error", "stopped", "second Ctrl-C"],
)
def test_exit_code_tells_how_it_ended(
    error: BaseException | None, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def action() -> None:
        if error is not None:
            raise error

    assert exit_code(action) == code
    assert capsys.readouterr().err == printed


def test_sigterm_ends_what_ray_does_with_a_word(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, time\n"
        "from qa_ray.cli.commands import run_configured\n"
        "def job(config):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(600)\n"
        "sys.exit(run_configured(job, ['sample', '--cluster.local-cpus', '1'], 'job', ''))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "terminated\n")


def test_reader_who_has_seen_enough_is_no_error() -> None:
    program = f"{sys.executable} -m qa_ray.cli train sample --dry-run"
    done = subprocess.run(["bash", "-c", f"{program} | true"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.usefixtures("no_ray")
def test_what_the_job_returns_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_configured(lambda config: f"all is well with {config.run.name}", ["sample"], "job", "") == 0
    assert "all is well with sample-" in capsys.readouterr().out


@pytest.mark.usefixtures("no_ray")
def test_a_bug_is_not_dressed_up_as_a_user_error() -> None:
    def broken(config: Config) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_configured(broken, ["sample"], "job", "")


@pytest.mark.parametrize("command", [["jobs/train.py"], ["-m", "qa_ray.cli", "train"]], ids=["script", "command"])
def test_missing_file_on_the_real_command_line_ends_without_a_traceback(command: list[str], tmp_path: Path) -> None:
    program = [str(ROOT / word) if word.endswith(".py") else word for word in command]
    words = ["sample", "--data.train", str(tmp_path / "gone.json"), "--cluster.local-cpus", "2"]
    storage = ["--run.storage-path", str(tmp_path / "runs")]
    ended = subprocess.run(
        [sys.executable, *program, *words, *storage], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ended.returncode == 1
    assert "gone.json" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    assert not list((tmp_path / "runs").iterdir()), "a run that never began must not keep its name"


def test_module_is_imported_beside_what_the_context_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "told.py").write_text("import threading\nbegun, end = threading.Event(), threading.Event()\n")
    (tmp_path / "waits.py").write_text("import told\ntold.begun.set()\ntold.end.wait()\n")
    monkeypatch.syspath_prepend(tmp_path)
    told = importlib.import_module("told")
    with importing("waits"):
        told.begun.wait()
        told.end.set()
    assert "waits" in sys.modules
