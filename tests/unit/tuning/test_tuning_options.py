"""The command line of a sweep: the recipe's space, another one, and mistakes that are told before anything starts."""

import pytest

from qa_ray.cli.arguments import parse_run
from qa_ray.config.fine_tuning import TrainConfig
from qa_ray.errors import ConfigError
from qa_ray.tuning.options import SamplerKind, SweepConfig, TuneConfig, as_sweep


def parsed(*arguments: str) -> SweepConfig:
    config = parse_run(arguments, as_sweep).named()
    assert isinstance(config, SweepConfig)
    return config


def test_sweep_without_options_searches_the_recipe_around_its_own_values() -> None:
    config = parsed("minilm")
    assert config.space == ("optim.learning_rate=loguniform(4e-05, 0.001)", "window.stride=choice(32, 64, 128)")
    assert config.tune == TuneConfig()


def test_sweep_takes_a_space_its_own_knobs_and_every_field_of_a_run() -> None:
    space = ("batch.size=randint(8,32)", "window.stride=choice(8, 16)")
    options = ("--tune.num-trials", "3", "--tune.sampler", "random", "--optim.weight-decay", "0.1", "--run.name", "a")
    config = parsed("sample", "--space", *space, *options)
    assert config.space == space
    assert (config.tune.num_trials, config.tune.sampler) == (3, SamplerKind.RANDOM)
    assert (config.base.optim.weight_decay, config.base.run.name) == (0.1, "a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_trials": 0}, "tune.num_trials=0 must be at least 1"),
        ({"grace": 0}, "tune.grace=0 must be above 0"),
        ({"reduction": 1}, "tune.reduction=1 must be at least 2"),
        ({"max_failures": -1}, "tune.max_failures=-1 must not be negative"),
        ({"max_concurrent": 0}, "tune.max_concurrent=0 must be at least 1"),
        ({"hours": 0}, "tune.hours=0 must be above 0"),
        ({"seed": -1}, "tune.seed=-1 must not be negative"),
    ],
    ids=str,
)
def test_option_that_cannot_work_is_refused(change: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TuneConfig(**change)  # type: ignore[arg-type]


def test_rung_that_no_trial_reaches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tune\.grace=2: no trial comes so far, with train\.epochs=1"):
        SweepConfig(train=TrainConfig(epochs=1), tune=TuneConfig(grace=2))


def test_grid_of_a_range_of_reals_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learning_rate=loguniform\(4e-05, 0.001\): a grid needs single values"):
        SweepConfig(space=parsed("minilm").space, tune=TuneConfig(sampler=SamplerKind.GRID))


def test_mistake_in_the_space_ends_the_command_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("minilm", "--space", "window.strid=choice(1, 2)")
    said = " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
    assert "window.strid: there is no such field; known are window.max_length, window.stride" in said
