"""Search spaces: what is read, what is refused in which words, and what a point does to a configuration."""

from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution as Real
from optuna.distributions import IntDistribution as Integers

from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import Schedule
from qa_ray.config.recipes import RECIPES
from qa_ray.errors import ConfigError
from qa_ray.tuning.options import as_sweep
from qa_ray.tuning.space import Domain, apply, defaults, read_space, written


@pytest.mark.parametrize(
    ("item", "field", "domain"),
    [
        ("optim.learning_rate=loguniform(1e-5,5e-4)", "optim.learning_rate", Real(1e-5, 5e-4, log=True)),
        ("optim.warmup_ratio = uniform(0, 0.3)", "optim.warmup_ratio", Real(0.0, 0.3)),
        ("batch.size=randint(8, 32)", "batch.size", Integers(8, 32)),
        ("batch.size=lograndint(1, 64)", "batch.size", Integers(1, 64, log=True)),
        ("window.stride=choice(32, 64)", "window.stride", Choice((32, 64))),
        ("optim.schedule=choice(linear, 'cosine')", "optim.schedule", Choice((Schedule.LINEAR, Schedule.COSINE))),
        ("model.dropout=choice(None, 0.1)", "model.dropout", Choice((None, 0.1))),
        ("model.dropout=uniform(0, 0.3)", "model.dropout", Real(0.0, 0.3)),
        ("train.compile=choice(true, False)", "train.compile", Choice((True, False))),
        ("data.max_train_examples=choice(None, 100)", "data.max_train_examples", Choice((None, 100))),
        ("model.name=choice(package://a/b, c/d)", "model.name", Choice(("package://a/b", "c/d"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_domain_is_read_by_the_type_of_its_field_and_written_down(item: str, field: str, domain: Domain) -> None:
    assert read_space([item]) == read_space([f"{field}={written(domain)}"]) == {field: domain}


def test_domain_is_written_as_in_the_records_of_earlier_sweeps() -> None:
    items = [
        "optim.learning_rate=loguniform(1e-05, 0.0005)",
        "batch.size=randint(8, 32)",
        "window.stride=choice(8, 16)",
    ]
    assert [f"{field}={written(domain)}" for field, domain in read_space(items).items()] == items


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (
            "optim.learning_rat=uniform(1, 2)",
            r"optim.learning_rat: there is no such field; known are optim.learning_rate,",
        ),
        ("stride=choice(1)", "stride: there is no such field; known are "),
        ("window.stride", r"window.stride: write FIELD=DOMAIN, with one of loguniform\(LOW, HIGH\)"),
        ("window.stride=normal(1, 2)", r"window.stride=normal\(1, 2\): write one of loguniform"),
        ("window.stride=64", r"window.stride=64: write one of"),
        ("window.stride=uniform(1, 2)", "the field is not a number: it takes whole numbers"),
        ("optim.schedule=randint(1, 2)", "the field is not a whole number: it takes linear or cosine or constant"),
        ("optim.schedule=choice(square)", "'square' does not fit: the field takes linear or cosine or constant"),
        ("window.stride=choice(32, many)", "'many' does not fit: the field takes whole numbers"),
        ("window.stride=choice(32, 32)", "a value twice"),
        ("window.stride=choice()", "at least one value"),
        ("window.stride=randint(1)", "a range has two ends, not 1"),
        ("window.stride=randint(9, 3)", "the lower end 9 must be below the upper end 3"),
        ("optim.learning_rate=loguniform(0, 1)", "the lower end 0 of a logarithmic range must be above 0"),
        ("optim.learning_rate=uniform(0, inf)", "finite"),
        ("optim.betas=choice(0.9)", "a field of this type cannot be searched"),
        ("cluster.num_workers=choice(1, 2)", "it changes no score"),
        ("data.validation=choice(a, b)", "scores could not be compared"),
        ("data.impossible_answers=choice(error, ignore)", "scores could not be compared"),
        ("model.trust_remote_code=choice(true)", "cannot let a model's code run, only --model.trust-remote-code can"),
        ("data.max_train_examples=randint(10, 20)", r"searched by choice\(VALUE, ...\) only"),
        ("nowhere.toml", "nowhere.toml cannot be read: No such file"),
    ],
)
def test_mistake_in_a_space_is_said_with_what_is_allowed(item: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_space([item])


def test_space_without_a_field_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no field"):
        read_space([])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("space.toml", '[optim]\nlearning_rate = "loguniform(1e-5, 1e-3)"\n[window]\nstride = [32, 64]\n'),
        ("space.json", '{"optim.learning_rate": "loguniform(1e-5, 1e-3)", "window": {"stride": "choice(32, 64)"}}'),
    ],
)
def test_space_is_read_from_a_file_and_changed_by_what_follows(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    space = read_space([str(path), "window.stride=choice(8)"])
    assert space == {"optim.learning_rate": Real(1e-5, 1e-3, log=True), "window.stride": Choice((8,))}


def test_broken_file_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text("[optim\n")
    with pytest.raises(ConfigError, match=r"space\.toml cannot be read"):
        read_space([str(path)])


def test_point_replaces_its_fields_and_no_other() -> None:
    config = apply(Config(), {"optim.learning_rate": 1e-3, "window.stride": 7, "data.columns.id": "key"})
    assert (config.optim.learning_rate, config.window.stride, config.data.columns.id) == (1e-3, 7, "key")
    assert apply(config, {"optim.learning_rate": 3e-5, "window.stride": 128, "data.columns.id": "id"}) == Config()


def test_point_that_a_configuration_refuses_is_an_error_with_its_reason() -> None:
    with pytest.raises(ConfigError, match=r"window\.stride=400 must be in"):
        apply(Config(), {"window.stride": 400})


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_space_that_holds_its_own_values(name: str) -> None:
    config = as_sweep(RECIPES[name]())
    space = read_space(config.space)
    own = defaults(config.base, space)
    rate, stride = space["optim.learning_rate"], space["window.stride"]
    assert isinstance(rate, Real)
    assert isinstance(stride, Choice)
    assert rate.low < own["optim.learning_rate"] < rate.high
    assert own["window.stride"] in stride.choices
    assert config.base == RECIPES[name]()
