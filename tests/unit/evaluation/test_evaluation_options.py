"""The evaluation job's command line, and the configuration that follows from it and from what the model brings."""

from collections.abc import Callable

import pytest
from command_lines import parser

from qa_ray.cli import run_job
from qa_ray.config.policies import BadRows, DataFormat, Precision
from qa_ray.errors import ConfigError
from qa_ray.evaluation.options import EvaluationOptions, as_options
from qa_ray.model.folder import AnswerSettings

SAVED = AnswerSettings(max_length=192, stride=64, n_best=7, max_answer_length=21, no_answer_threshold=1.5)


@pytest.fixture
def parse() -> Callable[..., EvaluationOptions]:
    return parser(EvaluationOptions)


def test_model_is_named_first_and_the_rest_by_name(parse: Callable[..., EvaluationOptions]) -> None:
    options = parse("runs/one", "--data", "dev.json", "--against", "runs/two", "--cluster.num-workers", "3")
    assert (options.model, options.data, options.against) == ("runs/one", "dev.json", "runs/two")
    assert options.cluster.num_workers == 3


def test_settings_are_those_of_the_model(parse: Callable[..., EvaluationOptions]) -> None:
    config = parse("m", "--data", "dev.json", "--precision", "fp32").configure("m", SAVED)
    assert (config.window.max_length, config.window.stride) == (192, 64)
    assert (config.evaluate.n_best, config.evaluate.max_answer_length) == (7, 21)
    assert config.train.precision is Precision.FP32


def test_options_override_the_settings_of_the_model(parse: Callable[..., EvaluationOptions]) -> None:
    words = ["--max-length", "300", "--stride", "0", "--n-best", "3", "--max-answer-length", "5"]
    config = parse("m", "--data", "dev.json", *words).configure("m", SAVED)
    assert (config.window.max_length, config.window.stride) == (300, 0)
    assert (config.evaluate.n_best, config.evaluate.max_answer_length) == (3, 5)


@pytest.mark.parametrize("words", [["m"], ["--data", "d"], ["m", "--data", "d", "--num-resamples", "99"]])
def test_wrong_arguments_end_with_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_job(EvaluationOptions, lambda options: "", words)
    assert ended.value.code == 2


def test_window_shorter_than_the_saved_stride_is_told_by_both_options(parse: Callable[..., EvaluationOptions]) -> None:
    options = parse("runs/one", "--data", "dev.json", "--max-length", "64")
    words = r"--stride=64 must be in \[0, --max-length=64\): what is not given was saved with runs/one"
    with pytest.raises(ConfigError, match=words):
        options.configure("runs/one", SAVED)
    assert options.max_length == 64


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("evaluate.n_best=0 must be at least 1", "--n-best=0 must be at least 1"),
        ("set data.hub, or data.hub_config", "set --hub, or --hub-config"),
        ("data.validation and data.max_validation_examples", "--data and --max-examples"),
        ("data.columns.context: no such column", "--columns.context: no such column"),
        ("/my/data.json and model.safetensors cannot be read", "/my/data.json and model.safetensors cannot be read"),
    ],
)
def test_fields_of_the_configuration_are_told_as_options(message: str, expected: str) -> None:
    assert as_options(message) == expected


def test_data_are_read_as_the_options_say(parse: Callable[..., EvaluationOptions]) -> None:
    words = ["--hub", "user/set", "--hub-config", "plain", "--hub-revision", "v2", "--format", "jsonl"]
    words += ["--max-examples", "9", "--on-bad-row", "skip", "--columns.context", "body"]
    data = parse("m", "--data", "validation", *words).configure("m", SAVED).data
    assert (data.validation, data.hub, data.hub_config, data.revision) == ("validation", "user/set", "plain", "v2")
    assert (data.format, data.on_bad_row) == (DataFormat.JSONL, BadRows.SKIP)
    assert (data.max_validation_examples, data.max_train_examples) == (9, None)
    assert data.columns.context == "body"
