"""Every command that a page shows: ours are read by the job's own parser; of others it is said why they are not run."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import pytest
from documents import ROOT, Command, commands, files
from ray.dashboard.modules.job.cli import submit
from ray.scripts.scripts import cli as ray_cli

from qa_ray.benchmark.options import BenchmarkOptions
from qa_ray.cli.arguments import parse_options, parse_run
from qa_ray.cli.ask import AskOptions
from qa_ray.cli.console import COMMANDS, main
from qa_ray.config.recipes import RECIPES
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.inspection.options import as_inspection
from qa_ray.prediction.options import PredictionOptions
from qa_ray.publishing.options import RunPublishOptions
from qa_ray.serving.options import ServeOptions
from qa_ray.tuning.options import as_sweep


def read_words(options: type) -> Callable[[Sequence[str]], object]:
    return lambda words: parse_options(options, words, "job")


PARSERS: dict[str, Callable[[Sequence[str]], object]] = {
    "train": parse_run,
    "tune": lambda words: parse_run(words, as_sweep),
    "inspect": lambda words: parse_run(words, as_inspection),
    "doctor": parse_run,
    "ask": read_words(AskOptions),
    "evaluate": read_words(EvaluationOptions),
    "predict": read_words(PredictionOptions),
    "serve": read_words(ServeOptions),
    "publish": read_words(RunPublishOptions),
    "benchmark": read_words(BenchmarkOptions),
}
# These only print, and are run.
PRINTED = {"", "--completion", "schema"}

NOT_RUN = {
    "git clone": "there is no repository to clone from",
    "cd": "a folder that the clone would have made",
    "source": "the virtual environment of whoever reads",
    "xdg-open": "opens a window",
    "cat": "shows a file",
    "touch": "makes a file",
    "chmod": "the file that touch made",
    "export": "variables of whoever reads",
    "mlflow ui": "a server, which does not end",
    "mlflow models": "a server, which does not end",
    "kubectl": "needs Kubernetes",
    "docker": "needs a registry; tests/unit/test_image.py builds the image where there is a builder",
    "curl": "needs a service; tests/ray/test_serve.py asks one",
    "wrk": "needs a service, and minutes",
    "serve deploy": "needs a cluster; tests/ray/test_serve.py makes what the file describes",
    "ray": "needs a cluster; tests/ray/test_launcher.py launches one",
    "make": "this test runs in one of them",
}


def test_pages_have_commands_of_every_job() -> None:
    shown = {command.job[0] for command in commands() if command.job is not None}
    assert shown == PARSERS.keys() | PRINTED
    assert shown >= COMMANDS.keys()


@pytest.mark.parametrize("command", [command for command in commands() if command.job is not None], ids=str)
def test_command_of_ours_is_read_by_the_jobs_own_parser(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.job is not None
    job, words = command.job
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.json").write_text(json.dumps(dataclasses.asdict(RECIPES["minilm"]())))
    monkeypatch.chdir(tmp_path)
    if job in PRINTED:
        assert main([job, *words] if job else []) == 0
    elif "--help" in words:
        with pytest.raises(SystemExit) as ended:
            PARSERS[job](words)
        assert ended.value.code == 0
    else:
        PARSERS[job](words)


@pytest.mark.parametrize("command", [command for command in commands() if command.job is None], ids=str)
def test_command_of_others_is_known(command: Command) -> None:
    names = [" ".join(command.words[:count]) for count in (1, 2)]
    assert any(name in NOT_RUN for name in names), "run it, or say in NOT_RUN why not"


def test_nothing_is_excused_that_no_page_shows() -> None:
    shown = {" ".join(command.words[:count]) for command in commands() for count in (1, 2)}
    assert NOT_RUN.keys() <= shown


def test_targets_of_make_exist() -> None:
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = {command.words[1] for command in commands() if command.words[0] == "make"}
    assert shown <= set(rules)
    assert {"train", "test"} <= shown


@pytest.mark.parametrize("command", [command for command in commands() if command.words[0] == "ray"], ids=str)
def test_command_of_rays_exists_and_takes_these_options(command: Command) -> None:
    words = list(command.words[1:])
    found: click.Command = ray_cli
    context = click.Context(found)
    while isinstance(found, click.Group):
        name = words.pop(0)
        following = found.get_command(context, name)
        assert following is not None, name
        found = following
    with contextlib.suppress(click.exceptions.BadParameter):  # a file that is not here
        found.make_parser(click.Context(found)).parse_args(words)
    if found is submit:
        assert command.job is not None
        assert command.job[0] in COMMANDS
