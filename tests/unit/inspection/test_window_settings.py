"""What other windows give: their numbers, and the answers that they hold."""

from pathlib import Path

from inspections import configured, inspected, passage

from qa_ray.config.fine_tuning import WindowConfig
from qa_ray.inspection.settings import compare
from qa_ray.model.loading import learn_template, load_tokenizer

TOWNS = " ".join(["town"] * 200)


def test_settings_are_measured_up_to_the_models_limit(bert: Path) -> None:
    config = configured(bert, window={"max_length": 64, "stride": 8}, batch={"size": 2, "pad_to_multiple_of": 8})
    # Answers of 60 and of 2 tokens, and a question of one token: windows have 4 tokens less for the context.
    train = inspected(config, [passage(TOWNS, ("old", [TOWNS[: 60 * 5 - 1]]), ("river", ["town town"]))])
    template = learn_template(load_tokenizer(config.model))
    found = compare([train], config, template, 200)
    by_window = {(one.window.max_length, one.window.stride): one for one in found}
    assert list(by_window) == [(64, 8), (64, 32), (128, 8), (128, 32), (128, 64), (200, 8), (200, 32), (200, 64)]
    own = by_window[64, 8]
    # 60 of the 200 tokens, and 52 more in each window behind it: 1 + 140 / 52, rounded up.
    assert own.windows == {"train": 2 * 4}
    assert own.whole == {"train": 2}
    assert by_window[128, 64].windows == {"train": 2 * 3}
    assert by_window[200, 8].windows == {"train": 2 * 2}
    # Of each question a window of 200 tokens and one of 4 + 12 tokens.
    assert by_window[200, 8].epoch == {"epoch_tokens": 2 * 200 + 2 * 16, "padding": 0.0}


def test_answer_that_is_longer_than_a_windows_room_is_not_whole(bert: Path) -> None:
    config = configured(bert, window={"max_length": 64, "stride": 8})
    train = inspected(config, [passage(TOWNS, ("old", [TOWNS[: 61 * 5 - 1]]))])
    validation = inspected(config, [passage("town " * 3, ("old", ["town"]))], "validation")
    found = compare([train, validation], config, learn_template(load_tokenizer(config.model)), None)
    whole = {(one.window.max_length, one.window.stride): one.whole for one in found}
    assert whole[64, 8] == {"train": 0, "validation": 1}
    assert whole[128, 32] == {"train": 1, "validation": 1}
    assert max(length for length, _ in whole) == 512


def test_windows_without_room_beside_the_stride_are_left_out(bert: Path) -> None:
    config = configured(bert, window={"max_length": 150, "stride": 126})
    train = inspected(config, [passage("town", ("old", []))])
    found = compare([train], config, learn_template(load_tokenizer(config.model)), 150)
    assert WindowConfig(max_length=150, stride=126) in [one.window for one in found]
    # 128 tokens less 3 special ones and 126 shared leave nothing for a question.
    assert WindowConfig(max_length=128, stride=126) not in [one.window for one in found]
