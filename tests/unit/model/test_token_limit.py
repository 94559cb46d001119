"""The limit of a device, and work in groups that it holds."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qa_ray.config.fine_tuning import AUTO
from qa_ray.errors import ClusterError
from qa_ray.model import token_limit
from qa_ray.model.token_limit import TokenLimit, cache_bytes, forward_tokens, in_groups, largest_fitting

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MIB, GIB = 2**20, 2**30


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


def model(width: int | None, inner: int | None = None) -> torch.nn.Module:
    """A model that says how wide its layers are, or that says nothing."""
    found = torch.nn.Identity()
    if width is not None:
        settings = {"hidden_size": width} if inner is None else {"hidden_size": width, "intermediate_size": inner}
        found.config = SimpleNamespace(**settings)
    return found


@pytest.mark.parametrize(
    ("cache", "one", "threads", "expected"),
    [
        pytest.param(32 * MIB, model(384, 1536), 4, 2184, id="MiniLM"),
        pytest.param(32 * MIB, model(384), 4, 2184, id="usual ratio"),
        pytest.param(32 * MIB, model(384, 768), 4, 3640, id="slim"),
        pytest.param(32 * MIB, model(768, 3072), 4, 1092, id="BERT-base"),
        pytest.param(32 * MIB, model(None), 4, 1092, id="no settings"),
        pytest.param(32 * MIB, model(1024, 4096), 4, 1024, id="BERT-large"),
        pytest.param(32 * MIB, model(384, 1536), 2, 2048, id="two threads"),
        pytest.param(32 * MIB, model(384, 1536), 1, 1024, id="one thread"),
        pytest.param(32 * MIB, model(384, 1536), 16, 4096, id="many threads"),
        pytest.param(0, model(384, 1536), 4, 1024, id="unknown cache"),
    ],
)
def test_forward_pass_on_a_cpu_is_one_whose_layers_fit_its_cache(
    monkeypatch: pytest.MonkeyPatch, cache: int, one: torch.nn.Module, threads: int, expected: int
) -> None:
    monkeypatch.setattr(token_limit, "cache_bytes", lambda: cache)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert forward_tokens(one, CPU) == expected


@pytest.mark.parametrize(
    ("memory", "one", "expected"),
    [
        (8 * GIB, model(1024, 4096), 16_384),
        (16 * GIB, model(1024, 4096), 26_214),
        (80 * GIB, model(384, 1536), 65_536),
    ],
    ids=["small", "16 GB", "80 GB"],
)
def test_forward_pass_on_a_gpu_takes_a_small_part_of_its_memory(
    monkeypatch: pytest.MonkeyPatch, memory: int, one: torch.nn.Module, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=memory))
    assert forward_tokens(one, GPU) == expected


def test_cache_is_the_largest_of_the_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_limit.os, "sched_getaffinity", lambda process: {5, 3})
    for core, sizes in (("cpu3", ("48K", "32K", "1024K", "32M", "")), ("cpu0", ("512M",))):
        for index, size in enumerate(sizes):
            folder = tmp_path / core / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            (folder / "size").write_text(f"{size}\n")
    assert cache_bytes(tmp_path) == 32 * MIB
    assert cache_bytes(tmp_path / "nowhere") == 0


def test_limit_is_chosen_once_and_only_where_no_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_limit, "cache_bytes", lambda: 32 * MIB)
    given, left, none = TokenLimit(100, "max_tokens"), TokenLimit(AUTO, "max_tokens"), TokenLimit(None, "max_tokens")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for limit in (given, left, none):
        limit.choose(model(384, 1536), CPU)
    assert (given.tokens, left.tokens, none.tokens) == (100, 2048, None)
    left.lower(8, 1024)
    left.choose(model(384, 1536), CPU)
    assert left.tokens == 512


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
