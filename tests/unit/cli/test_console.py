"""`qa-ray`: which commands there are, and what is said where there is none."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import qa_ray
from qa_ray.cli.completion import print_completion
from qa_ray.cli.console import COMMANDS, main

ROOT = Path(__file__).parents[3]
_COMPLETE = """
source {script}
complete_words() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _tyro_qa_ray; echo "${{COMPREPLY[@]}}"; }}
complete_words {words}
"""


def test_overview_names_every_command_in_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 24
    assert max(map(len, shown.splitlines())) <= 120
    for name in COMMANDS:
        assert f"qa-ray {name} " in shown


def test_every_command_but_one_has_a_script_of_its_name() -> None:
    scripts = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert COMMANDS.keys() - scripts == {"ask", "schema"}
    assert scripts <= COMMANDS.keys()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "schema"])
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: qa-ray {name}" in capsys.readouterr().out


def test_unknown_command_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "sample"]) == 2
    assert "there is no command 'trian': did you mean train?" in capsys.readouterr().err


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"qa_ray {qa_ray.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == qa_ray.__version__
    assert project["scripts"] == {"qa-ray": "qa_ray.cli.console:main"}


def test_schema_is_json_that_knows_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"recipe", "optim", "tune", "space"} <= schema["properties"].keys()
    assert main(["schema", "more"]) == 2


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["qa-ray", "eval"], "evaluate"),
        (["qa-ray", "train", "sample", "--optim.learn"], "--optim.learning-rate"),
        (["qa-ray", "tune", "sample", "--tune.sampler", "g"], "grid"),
        (["qa-ray", "predict", "m", "--top"], "--top-k"),
        (["qa-ray", "inspect", "sample", "--ou"], "--out"),
    ],
)
def test_bash_completes_commands_fields_and_choices(
    words: list[str], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_completion("bash")
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    script = _COMPLETE.format(script=tmp_path / "completion", words=" ".join(words))
    python = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=python, check=True)
    assert done.stdout.split() == [found]


def test_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion", "cmd"]) == 2
    assert "bash, zsh, tcsh" in capsys.readouterr().err
