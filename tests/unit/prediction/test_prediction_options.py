"""The prediction job's command line: what is recorded of it, and what is refused."""

from collections.abc import Callable

import pytest
from command_lines import parser

from qa_ray.cli.arguments import parse_options
from qa_ray.prediction.options import PredictionOptions


@pytest.fixture
def parse() -> Callable[..., PredictionOptions]:
    return parser(PredictionOptions)


@pytest.mark.parametrize(("word", "told"), [("auto", None), ("allowed", True), ("never", False)])
def test_empty_answers_are_asked_for_by_word(
    word: str, told: bool | None, parse: Callable[..., PredictionOptions]
) -> None:
    assert parse("m", "--data", "d", "--no-answer", word).handle_impossible is told


@pytest.mark.parametrize(("words", "expected"), [((), "auto"), (("auto",), "auto"), (("9",), 9)])
def test_forward_passes_are_sized_by_the_device_unless_a_number_is_given(
    words: tuple[str, ...], expected: int | str, parse: Callable[..., PredictionOptions]
) -> None:
    flags = ("--max-tokens-per-device", *words) if words else ()
    assert parse("m", "--data", "d", *flags).max_tokens_per_device == expected


def test_what_is_recorded_leaves_out_what_changes_no_answer(parse: Callable[..., PredictionOptions]) -> None:
    first = parse("m", "--data", "d")
    assert parse("m", "--data", "d", "--cluster.num-workers", "9", "--max-tokens-per-device", "9").recorded() == (
        first.recorded()
    )
    assert parse("m", "--data", "d", "--columns.context", "body").recorded() != first.recorded()


@pytest.mark.parametrize(
    "words",
    [
        ["m"],
        ["m", "--data", "d", "--top-k", "0"],
        ["m", "--data", "d", "--part-size", "0"],
        ["m", "--data", "d", "--max-tokens-per-device", "0"],
        ["m", "--data", "d", "--max-tokens-per-device", "many"],
        ["m", "--data", "d", "--max-examples", "0"],
        ["m", "--data", "d", "--out", "s3://user:secret@bucket/out"],
        ["m", "--data", "s3://user:secret@bucket/in"],
    ],
)
def test_wrong_arguments_end_with_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(PredictionOptions, words, "job")
    assert ended.value.code == 2
