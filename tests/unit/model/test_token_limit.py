"""The limit of a device, and work in groups that it holds."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qa_ray.config.fine_tuning import AUTO
from qa_ray.errors import ClusterError
from qa_ray.model.token_limit import TokenLimit, in_groups, largest_fitting


def collator(width: int = 8) -> Any:
    """Windows of one width."""

    def groups(items: Any, limit: int | None) -> list[Any]:
        size = len(items) if limit is None else max(1, limit // width)
        return [items[begin : begin + size] for begin in range(0, len(items), size)]

    return SimpleNamespace(groups=groups, shape=lambda items: (len(items), width))


def test_limit_is_half_of_what_did_not_fit_and_is_told() -> None:
    told: list[str] = []
    limit = TokenLimit(None, "max_tokens", told.append)
    limit.lower(6, 768)
    assert limit.tokens == 384
    limit.lower(3, 384)
    assert limit.tokens == 192
    assert told[1] == (
        "max_tokens: the device's memory does not hold 3 windows of together 384 tokens; from here on it takes at most "
        "192 tokens at once"
    )


def test_single_window_is_tried_again_and_then_given_up() -> None:
    limit = TokenLimit(128, "max_tokens")
    for _ in range(2):
        limit.lower(1, 128)
    limit.fits()
    for _ in range(2):
        limit.lower(1, 128)
    with pytest.raises(ClusterError, match="a single window of 128 tokens"):
        limit.lower(1, 128)
    assert limit.tokens == 128


@pytest.mark.parametrize(
    ("configured", "saved", "expected"),
    [
        (None, [(None, 64), (None, 96)], 64),
        (None, [(None, None), (None, 96)], 96),
        (None, [(None, None)], None),
        (128, [(128, 64)], 64),
        (256, [(128, 64)], 256),
        (AUTO, [(AUTO, 320)], 320),
        (None, [(128, 64)], None),
        (None, [], None),
    ],
)
def test_saved_limit_holds_while_the_same_is_configured(
    configured: Any, saved: list[Any], expected: int | None
) -> None:
    states = []
    for before, tokens in saved:
        one = TokenLimit(before, "max_tokens")
        one.tokens = tokens
        states.append(one.state())
    limit = TokenLimit(configured, "max_tokens")
    limit.restore(states)
    assert limit.tokens == expected


def test_work_goes_on_in_smaller_groups_and_in_the_same_order() -> None:
    limit, sizes = TokenLimit(None, "max_tokens"), []

    def compute(group: Any) -> int:
        sizes.append(len(group))
        if len(group) > 3:
            raise torch.OutOfMemoryError
        return int(group.sum())

    found = list(in_groups(collator(), np.arange(10), limit, compute))
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    assert np.concatenate([group for group, _ in found]).tolist() == list(range(10))
    assert sum(total for _, total in found) == 45
    assert limit.tokens == 20


@pytest.mark.parametrize("most", [1, 7, 100])
def test_largest_fitting_is_found_to_an_eighth(most: int) -> None:
    for held in range(most + 1):
        tried: list[int] = []

        def fits(number: int, held: int = held, tried: list[int] = tried) -> bool:
            tried.append(number)
            return number <= held

        found = largest_fitting(fits, most)
        assert held - held // 8 <= found <= held
        assert len(tried) == len(set(tried)) <= 12
