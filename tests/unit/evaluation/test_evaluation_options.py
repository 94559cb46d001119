"""The evaluation job's command line, and the configuration that follows from it and from what the model brings."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_lines import parser

from qa_ray.cli.arguments import parse_options
from qa_ray.config.answering import AnswerSettings
from qa_ray.config.data import DataConfig
from qa_ray.config.policies import BadRows, DataFormat, ImpossibleAnswers, Language, Precision
from qa_ray.data.files import find_files
from qa_ray.data.passages import read_passages
from qa_ray.errors import ConfigError, DataError
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.model.folder import answer_settings

SAVED = AnswerSettings(max_length=192, stride=64, n_best=7, max_answer_length=21, no_answer_threshold=1.5)


@pytest.fixture
def parse() -> Callable[..., EvaluationOptions]:
    return parser(EvaluationOptions)


def test_model_is_named_first_and_the_rest_by_name(parse: Callable[..., EvaluationOptions]) -> None:
    options = parse("runs/one", "--data", "dev.json", "--against", "runs/two", "--cluster.num-workers", "3")
    assert (options.model, options.data, options.against) == ("runs/one", "dev.json", "runs/two")
    assert options.cluster.num_workers == 3


def test_settings_are_those_of_the_model_unless_given(parse: Callable[..., EvaluationOptions]) -> None:
    options = parse("m", "--data", "dev.json")
    assert answer_settings(options, "m", SAVED) == SAVED
    config = parse("m", "--data", "dev.json", "--precision", "fp32").configure("m", SAVED)
    assert (config.window.max_length, config.window.stride) == (192, 64)
    assert (config.evaluate.n_best, config.evaluate.max_answer_length) == (7, 21)
    assert config.train.precision is Precision.FP32
    words = ["--max-length", "300", "--stride", "0", "--n-best", "3", "--no-answer-threshold", "-2.5"]
    assert answer_settings(parse("m", "--data", "dev.json", *words), "m", SAVED) == AnswerSettings(
        max_length=300, stride=0, n_best=3, max_answer_length=21, no_answer_threshold=-2.5
    )


def test_rule_is_that_of_squad_unless_a_language_is_given(parse: Callable[..., EvaluationOptions]) -> None:
    assert parse("m", "--data", "d").configure("m", SAVED).evaluate.language is Language.SQUAD
    assert parse("m", "--data", "d", "--language", "zh").configure("m", SAVED).evaluate.language is Language.CHINESE


@pytest.mark.parametrize("words", [["m"], ["--data", "d"], ["m", "--data", "d", "--num-resamples", "99"]])
def test_wrong_arguments_end_with_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(EvaluationOptions, words, "job")
    assert ended.value.code == 2


def test_window_shorter_than_the_saved_stride_is_told_by_both_options(parse: Callable[..., EvaluationOptions]) -> None:
    options = parse("runs/one", "--data", "dev.json", "--max-length", "64")
    words = r"--stride=64 must be in \[0, --max-length=64\): what is not given was saved with runs/one"
    with pytest.raises(ConfigError, match=words):
        answer_settings(options, "runs/one", SAVED)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n-best", "0"], "--n-best=0 must be at least 1"),
        (["--max-answer-length", "0"], "--max-answer-length=0 must be at least 1"),
        (["--max-tokens-per-device", "0"], "--max-tokens-per-device=0 must be at least 1"),
        (["--max-length", "7"], "--max-length=7 must be at least 8"),
        (["--max-examples", "0"], "--max-examples=0 must be at least 1"),
        (["--data", ""], "--data is empty: name the questions"),
        (["--data", "s3://user:secret@bucket"], "--data holds a password or a key"),
    ],
)
def test_value_that_cannot_work_is_told_by_its_option(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_options(EvaluationOptions, ["m", "--data", "d", *words], "job")
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_fields_of_the_data_are_told_as_options(parse: Callable[..., EvaluationOptions]) -> None:
    told = {"validation": "--data", "revision": "--hub-revision", "max_validation_examples": "--max-examples"}
    told |= {"columns.answer_start": "--columns.answer-start", "hub_config": "--hub-config", "format": "--format"}
    for field, option in told.items():
        assert parse("m", "--data", "d", option, "csv" if field == "format" else "9")
        assert parse("m", "--data", "d").data_config().option(field) == option
        assert DataConfig().option(field) == f"data.{field}"


def test_path_is_told_as_it_is_and_what_to_do_by_options(
    parse: Callable[..., EvaluationOptions], tmp_path: Path
) -> None:
    place = tmp_path / "data.hub" / "data.format"
    place.mkdir(parents=True)
    data = parse("m", "--data", "d", "--columns.context", "body").configure("m", SAVED).data
    with pytest.raises(DataError, match=rf"{place}/gone\. .*; for a data set on the Hub, set --hub$"):
        find_files(data, f"{place}/gone")
    (place / "dev.txt").touch()
    with pytest.raises(DataError, match=rf"^{place}/dev.txt: the ending .* Set --format to one of"):
        find_files(data, f"{place}/dev.txt")
    (place / "dev.csv").write_text("context,question,answers")
    (problem,) = read_passages(find_files(data, f"{place}/dev.csv"), data)
    assert "there is no column 'body'" in problem.message
    assert problem.message.endswith("Name the right one with --columns.context=...")


def test_data_are_read_as_the_options_say(parse: Callable[..., EvaluationOptions]) -> None:
    words = ["--hub", "user/set", "--hub-config", "plain", "--hub-revision", "v2", "--format", "jsonl"]
    words += ["--max-examples", "9", "--on-bad-row", "skip", "--columns.context", "body"]
    words += ["--impossible-answers", "ignore"]
    data = parse("m", "--data", "validation", *words).configure("m", SAVED).data
    assert (data.validation, data.hub, data.hub_config, data.revision) == ("validation", "user/set", "plain", "v2")
    assert (data.format, data.on_bad_row) == (DataFormat.JSONL, BadRows.SKIP)
    assert data.impossible_answers is ImpossibleAnswers.IGNORE
    assert (data.max_validation_examples, data.max_train_examples) == (9, None)
    assert data.columns.context == "body"
