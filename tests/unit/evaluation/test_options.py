"""The evaluation job's command line, and the configuration that follows from it and from what the model brings."""

from collections.abc import Callable

import pytest

from qa_ray.cli import run_job
from qa_ray.evaluation.options import Options
from qa_ray.policies import Precision
from qa_ray.saved_model import AnswerSettings

SAVED = AnswerSettings(max_length=192, stride=64, n_best=7, max_answer_length=21, no_answer_threshold=1.5)


@pytest.fixture
def parse() -> Callable[..., Options]:
    def parse(*words: str) -> Options:
        seen: list[Options] = []
        assert run_job(Options, lambda options: str(seen.append(options)), words) == 0
        return seen[0]

    return parse


def test_model_is_named_first_and_the_rest_by_name(parse: Callable[..., Options]) -> None:
    options = parse("runs/one", "--data", "dev.json", "--against", "runs/two", "--cluster.num-workers", "3")
    assert (options.model, options.data, options.against) == ("runs/one", "dev.json", "runs/two")
    assert options.cluster.num_workers == 3


def test_settings_are_those_of_the_model(parse: Callable[..., Options]) -> None:
    config = parse("m", "--data", "dev.json", "--precision", "fp32").configure("m", SAVED)
    assert (config.window.max_length, config.window.stride) == (192, 64)
    assert (config.evaluate.n_best, config.evaluate.max_answer_length) == (7, 21)
    assert config.train.precision is Precision.FP32


def test_options_override_the_settings_of_the_model(parse: Callable[..., Options]) -> None:
    words = ["--max-length", "300", "--stride", "0", "--n-best", "3", "--max-answer-length", "5"]
    config = parse("m", "--data", "dev.json", *words).configure("m", SAVED)
    assert (config.window.max_length, config.window.stride) == (300, 0)
    assert (config.evaluate.n_best, config.evaluate.max_answer_length) == (3, 5)


@pytest.mark.parametrize("words", [["m"], ["--data", "d"], ["m", "--data", "d", "--num-resamples", "0"]])
def test_wrong_arguments_end_with_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_job(Options, lambda options: "", words)
    assert ended.value.code == 2
