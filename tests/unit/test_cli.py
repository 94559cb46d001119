"""The command line: what it parses, what it prints, and its exit codes."""

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qa_ray.cli import exit_code, main, parse, start_ray
from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import Resume, Schedule
from qa_ray.config.recipes import RECIPES
from qa_ray.errors import ClusterError, ConfigError, DataError, StoppedError

ROOT = Path(__file__).parents[2]


def never(config: Config) -> str:
    raise AssertionError("the job ran")


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qa_ray.cli.start_ray", lambda config: None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_without_arguments_is_the_recipe(recipe: str) -> None:
    config, dry_run = parse([recipe])
    assert not dry_run
    assert config.model == RECIPES[recipe]().model
    assert config.run.name is not None
    assert config.run.name.startswith(f"{recipe}-")


def test_arguments_override_the_recipe() -> None:
    config, _ = parse(["sample", "--optim.schedule", "cosine", "--window.stride", "7", "--run.name", "mine"])
    assert config.optim.schedule is Schedule.COSINE
    assert config.window.stride == 7
    assert config.window.max_length == RECIPES["sample"]().window.max_length
    assert config.run.name == "mine"


def test_dry_run_prints_the_configuration_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(never, ["sample", "--train.seed", "5", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["seed"] == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "invalid choice"),
        ([], "RECIPE"),
        (["sample", "--no-such-knob", "1"], "no-such-knob"),
        (["sample", "--window.stride", "400"], "window.stride=400 must be in [0, window.max_length=128)"),
        (["sample", "--train.seed", "many"], "train.seed"),
    ],
    ids=["unknown recipe", "no recipe", "unknown knob", "stride beyond the window", "not a number"],
)
def test_wrong_arguments_end_with_code_2_and_say_which(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(never, arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    shown = re.sub(r"[│\s]+", " ", printed.err + printed.out)
    assert words in shown


def test_help_of_a_recipe_lists_the_knobs_with_their_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(never, ["sample", "--help"])
    assert ended.value.code == 0
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert "--window.stride" in shown
    assert "Context tokens that two neighbouring windows share." in shown


@pytest.mark.usefixtures("no_ray")
def test_user_error_is_one_line_and_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: Config) -> str:
        raise DataError("train.json is missing: name another file")

    assert main(fail, ["sample"]) == 1
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


@pytest.mark.parametrize(
    ("arguments", "workers"),
    [([], None), (["3"], 3), (["1", "4"], (1, 4))],
    ids=["none", "a number", "a range"],
)
def test_number_of_workers_is_one_number_or_two(arguments: list[str], workers: int | tuple[int, int] | None) -> None:
    config, _ = parse(["minilm", *(["--cluster.num-workers", *arguments] if arguments else [])])
    assert config.cluster.num_workers == workers


def test_resuming_and_checkpoints_are_set_on_the_command_line() -> None:
    config, _ = parse(["sample", "--run.resume", "required", "--checkpoint.every-minutes", "None"])
    assert config.run.resume is Resume.REQUIRED
    assert config.checkpoint.every_minutes is None


def test_password_on_the_command_line_is_refused_and_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(never, ["sample", "--run.storage-path", "s3://me:open-sesame@bucket/runs"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    shown = re.sub(r"[│\s]+", " ", printed.err + printed.out)
    assert "run.storage_path holds a password or a key" in shown
    assert "open-sesame" not in shown


@pytest.mark.usefixtures("no_ray")
def test_what_the_job_returns_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(lambda config: "all is well", ["sample"]) == 0
    assert "all is well" in capsys.readouterr().out


def test_a_bug_is_not_dressed_up_as_a_user_error(no_ray: None) -> None:
    def broken(config: Config) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main(broken, ["sample"])


def test_address_where_nothing_listens_is_named_at_once() -> None:
    with socket.socket() as silent:
        # Taken, so that nobody else can listen there.
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"cluster\.address=127\.0\.0\.1:{port}: nothing answers there"):
            start_ray(ClusterConfig(address=f"127.0.0.1:{port}"))


def test_missing_file_on_the_real_command_line_ends_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), "sample", "--data.train", str(tmp_path / "gone.json")]
    options = ["--run.storage-path", str(tmp_path / "runs"), "--cluster.local-cpus", "2"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 1
    assert "gone.json" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    assert not list((tmp_path / "runs").iterdir()), "a run that never began must not keep its name"


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^\s*(?:\S*/)?python jobs/(?:train|doctor)\.py .*$", text, re.MULTILINE)


def test_readme_has_train_commands() -> None:
    assert len(readme_commands()) >= 3


@pytest.mark.parametrize("command", readme_commands())
def test_train_command_of_the_readme_parses(command: str) -> None:
    arguments = shlex.split(command, comments=True)[2:]
    if "--help" not in arguments:
        parse([*arguments, "--dry-run"])
