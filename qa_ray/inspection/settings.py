"""What other windows would give: a table over lengths and strides."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qa_ray.config.fine_tuning import Config, WindowConfig
from qa_ray.data.template import Template
from qa_ray.data.windows import held_answers, make_windows
from qa_ray.errors import ConfigError
from qa_ray.inspection.split import TRAIN, InspectedSplit, epoch_tokens

_LENGTHS = (128, 256, 384, 512)
_STRIDES = (32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Setting:
    """One length and stride of windows, with what it gives."""

    window: WindowConfig
    windows: Mapping[str, int]
    """Number of windows, by split."""
    whole: Mapping[str, int]
    """Answers that are whole in some window, by split."""
    epoch: Mapping[str, object]
    """Tokens of an epoch of training with their share of padding."""


def compare(splits: Sequence[InspectedSplit], config: Config, template: Template, limit: int | None) -> list[Setting]:
    """The configuration's own windows and others, up to the `limit` of the model, by length and then stride.

    Windows that have no room for a question beside the stride are left out.
    """
    found = []
    for window in _choices(config.window, limit):
        try:
            cut = {split.name: make_windows(split.corpus, window, template) for split in splits}
        except ConfigError:
            continue
        found.append(
            Setting(
                window,
                windows={name: len(windows) for name, windows in cut.items()},
                whole={split.name: int(held_answers(split.corpus, cut[split.name]).sum()) for split in splits},
                epoch=epoch_tokens(cut[TRAIN].length, config, window.max_length) if TRAIN in cut else {},
            )
        )
    return found


def _choices(own: WindowConfig, limit: int | None) -> list[WindowConfig]:
    within = [length for length in _LENGTHS if limit is None or length <= limit]
    lengths = {*within, own.max_length, *([] if limit is None else [limit])}
    return [
        dataclasses.replace(own, max_length=length, stride=stride)
        for length in sorted(lengths)
        # More than half of a window is shared by three, which only the configuration itself may want.
        for stride in sorted({*(wide for wide in _STRIDES if 2 * wide <= length), own.stride})
        if stride < length
    ]
