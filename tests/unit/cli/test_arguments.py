"""What the words after `qa-ray train` say, and how a mistake in them is told."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from qa_ray.cli.arguments import parse_run
from qa_ray.cli.console import main
from qa_ray.config.files import read_config
from qa_ray.config.policies import Resume, Schedule
from qa_ray.config.recipes import RECIPES
from qa_ray.errors import ConfigError

Shown = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Shown:
    """What is said of a command line that is refused."""

    def call(*words: str) -> str:
        try:
            code = main(["train", *words])
        except SystemExit as ended:
            code = ended.code
        assert code in (1, 2)
        printed = capsys.readouterr()
        return re.sub(r"[│\s]+", " ", printed.err + printed.out)

    return call


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_without_arguments_is_the_recipe(recipe: str) -> None:
    parsed = parse_run([recipe])
    assert not parsed.dry_run
    assert parsed.config == RECIPES[recipe]()
    assert parsed.named().run.name.startswith(f"{recipe}-")


def test_runs_that_are_begun_in_the_same_second_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-120000")
    names = [parse_run(["sample"]).named().run.name for _ in range(3)]
    assert len(set(names)) == 3
    assert all(name.startswith("sample-20260101-120000-") for name in names)


def test_arguments_override_the_recipe() -> None:
    config = parse_run(["sample", "--optim.schedule", "cosine", "--window.stride", "7", "--run.name", "mine"]).named()
    assert config.optim.schedule is Schedule.COSINE
    assert config.window.stride == 7
    assert config.window.max_length == RECIPES["sample"]().window.max_length
    assert config.run.name == "mine"


def test_arguments_override_a_file_which_overrides_its_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "sample"\n[optim]\nlearning_rate = 1e-4\nweight_decay = 0.5\n')
    parsed = parse_run([str(file), "--optim.weight-decay", "0.25", "--train.epochs", "7"])
    config = parsed.named()
    assert (config.optim.learning_rate, config.optim.weight_decay, config.train.epochs) == (1e-4, 0.25, 7)
    assert config.model == RECIPES["sample"]().model
    assert config.run.name.startswith("mine-")


def test_config_json_of_a_run_is_a_file_too(tmp_path: Path) -> None:
    recorded = parse_run(["sample", "--run.name", "first", "--cluster.num-workers", "1", "2"]).named()
    (tmp_path / "config.json").write_text(json.dumps(asdict(recorded), indent=1))
    assert parse_run([str(tmp_path / "config.json")]).named() == recorded


@pytest.mark.parametrize("recipe", ["sample", "xlnet_base_squad_v2"])
def test_dry_run_prints_what_can_be_run_again_and_runs_nothing(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--train.seed", "5", "--checkpoint.every-minutes", "None", "--cluster.num-workers", "1", "4"]
    assert main(["train", recipe, *words, "--dry-run"]) == 0
    (tmp_path / "again.toml").write_text(capsys.readouterr().out)
    assert parse_run([str(tmp_path / "again.toml")]).config == parse_run([recipe, *words]).config
    assert main(["train", str(tmp_path / "again.toml"), "--dry-run"]) == 0
    assert capsys.readouterr().out == (tmp_path / "again.toml").read_text()


def test_run_without_a_name_has_none_in_the_file_so_that_each_run_of_it_is_a_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "sample", "--dry-run"]) == 0
    (tmp_path / "a.toml").write_text(capsys.readouterr().out)
    assert read_config(tmp_path / "a.toml", lambda config: config).run.name is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smaple"], "there is no recipe 'smaple': did you mean sample?"),
        ([], "RECIPE"),
        (["sample", "--no-such-knob", "1"], "no-such-knob"),
        (["sample", "--window.stride", "400"], "window.stride=400 must be in [0, window.max_length="),
        (["sample", "--train.seed", "many"], "train.seed"),
        (["gone.toml"], "gone.toml cannot be read: No such file"),
    ],
    ids=["unknown recipe", "no recipe", "unknown field", "stride beyond the window", "not a number", "no such file"],
)
def test_wrong_arguments_are_named(arguments: list[str], words: str, refused: Shown) -> None:
    assert words in refused(*arguments)


def test_help_of_a_recipe_lists_the_fields_with_their_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "sample", "--help"])
    assert ended.value.code == 0
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert "usage: qa-ray train sample" in shown
    assert "--window.stride" in shown
    assert "Context tokens that two neighbouring windows share." in shown


def test_help_of_the_command_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in RECIPES)


@pytest.mark.parametrize(
    ("arguments", "workers"),
    [([], None), (["3"], 3), (["1", "4"], (1, 4))],
    ids=["none", "a number", "a range"],
)
def test_number_of_workers_is_one_number_or_two(arguments: list[str], workers: int | tuple[int, int] | None) -> None:
    config = parse_run(["minilm", *(["--cluster.num-workers", *arguments] if arguments else [])]).config
    assert config.cluster.num_workers == workers


def test_resuming_and_checkpoints_are_set_on_the_command_line() -> None:
    config = parse_run(["sample", "--run.resume", "required", "--checkpoint.every-minutes", "None"]).config
    assert config.run.resume is Resume.REQUIRED
    assert config.checkpoint.every_minutes is None


def test_password_on_the_command_line_is_refused_and_not_printed(refused: Shown) -> None:
    shown = refused("sample", "--run.storage-path", "s3://me:open-sesame@bucket/runs")
    assert "run.storage_path holds a password or a key" in shown
    assert "open-sesame" not in shown


def test_unknown_recipe_raises_what_the_api_raises_too() -> None:
    with pytest.raises(ConfigError, match="there is no recipe 'nonsense'"):
        parse_run(["nonsense"])
