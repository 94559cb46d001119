"""An epoch's plan holds every window once, and its batches are shared out evenly, whatever the number of ranks."""

from itertools import pairwise

import numpy as np
import pytest
from families import FAMILIES
from hypothesis import given
from hypothesis import strategies as st
from passages import SAMPLE, SQUAD, corpus_of, read_file

from qa_ray.config.fine_tuning import BatchConfig, WindowConfig
from qa_ray.data.batching import micro_batches, padded_length, padded_tokens, plan_epoch, share_of_rank
from qa_ray.data.windows import make_windows

LENGTHS = st.lists(st.integers(1, 384), max_size=200).map(lambda values: np.array(values, np.int64))
CONFIGS = st.builds(BatchConfig, size=st.integers(1, 20), length_pool=st.integers(1, 6), packing=st.booleans())
SEEDS = st.integers(0, 2**32)
RANDOM_LENGTHS = np.random.default_rng(0).integers(20, 384, 1000)


def ascending(values):
    return sorted(np.asarray(values).tolist())


@given(LENGTHS, CONFIGS, SEEDS, st.integers(0, 5))
def test_every_window_is_in_one_full_batch_but_for_the_last(lengths, config, seed, epoch):
    plan = plan_epoch(lengths, config, seed=seed, epoch=epoch)
    batches = list(plan.batches())
    assert len(batches) == plan.num_batches == -(-len(lengths) // config.size)
    assert ascending(np.concatenate([plan.order[:0], *batches])) == list(range(len(lengths)))
    assert all(len(batch) == config.size for batch in batches[:-1])
    assert all(0 < len(batch) <= config.size for batch in batches[-1:])


@given(LENGTHS, CONFIGS, SEEDS, st.integers(0, 210))
def test_plan_goes_on_from_any_place(lengths, config, seed, start):
    plan = plan_epoch(lengths, config, seed=seed, epoch=1)
    rest = [batch.tolist() for batch in plan.batches(start)]
    assert rest == [batch.tolist() for batch in plan.batches()][start:]


@given(LENGTHS, CONFIGS, SEEDS, st.integers(0, 5))
def test_same_seed_and_epoch_repeat_the_plan(lengths, config, seed, epoch):
    once, again = (plan_epoch(lengths, config, seed=seed, epoch=epoch) for _ in range(2))
    assert once.order.tolist() == again.order.tolist()


@pytest.mark.parametrize("length_pool", [1, 4, 128])
@pytest.mark.parametrize("lengths", [RANDOM_LENGTHS, np.full(1000, 384)], ids=["mixed", "equal"])
def test_epochs_and_seeds_have_an_order_of_their_own(lengths, length_pool):
    config = BatchConfig(length_pool=length_pool)
    orders = [
        tuple(plan_epoch(lengths, config, seed=seed, epoch=epoch).order.tolist())
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    assert len(set(orders)) == 4
    companions = [{frozenset(order[place : place + 16]) for place in range(0, 1000, 16)} for order in orders]
    assert not companions[0] & companions[1]


def test_plan_is_the_same_for_any_number_of_ranks():
    plans = []
    for world_size in (1, 2, 3, 5):
        ranks = [plan_epoch(RANDOM_LENGTHS, BatchConfig(), seed=7, epoch=2) for _ in range(world_size)]
        shares = [
            [share_of_rank(batch, RANDOM_LENGTHS, rank, world_size) for batch in plan.batches()]
            for rank, plan in enumerate(ranks)
        ]
        plans.append([ascending(np.concatenate(batch)) for batch in zip(*shares, strict=True)])
    assert plans[0] == plans[1] == plans[2] == plans[3]
    assert plans[0] == [ascending(batch) for batch in ranks[0].batches()]


def test_batches_of_a_pool_do_not_overlap_in_padded_length_and_are_not_in_its_order():
    config = BatchConfig(size=10, length_pool=100)
    batches = list(plan_epoch(RANDOM_LENGTHS, config, seed=0, epoch=0).batches())
    extents = [(-(-RANDOM_LENGTHS[batch] // 8)).tolist() for batch in batches]
    by_length = sorted(extents, key=lambda extent: (max(extent), min(extent)))
    assert all(max(short) <= min(long) for short, long in pairwise(by_length))
    assert by_length != extents


def test_grouping_saves_as_much_padding_as_sorting_everything_by_length():
    config = BatchConfig(size=10, length_pool=100)

    def padding(batches):
        return sum(len(batch) * padded_length(int(batch.max()), 8, 384) for batch in batches) - RANDOM_LENGTHS.sum()

    planned = [RANDOM_LENGTHS[batch] for batch in plan_epoch(RANDOM_LENGTHS, config, seed=0, epoch=0).batches()]
    assert padding(planned) == padding(np.sort(RANDOM_LENGTHS).reshape(-1, 10))


def test_pools_hold_windows_of_every_length():
    config = BatchConfig(size=10, length_pool=10)
    lengths = np.arange(1000)
    batches = list(plan_epoch(lengths, config, seed=0, epoch=0).batches())
    assert all(np.ptp(batch) < 400 for batch in batches)
    assert np.mean([np.ptp(batch) for batch in batches]) > 50


def test_packed_batches_hold_about_as_many_tokens():
    tokens = {}
    for packing in (False, True):
        plan = plan_epoch(RANDOM_LENGTHS, BatchConfig(size=50, packing=packing), seed=0, epoch=0)
        tokens[packing] = np.array([RANDOM_LENGTHS[batch].sum() for batch in plan.batches()])
    assert tokens[True].max() < 1.5 * tokens[True].min()
    assert tokens[False].max() > 5 * tokens[False].min()


def test_short_batch_comes_last_and_is_not_of_the_longest():
    config = BatchConfig(size=30, length_pool=100)
    *full, rest = (RANDOM_LENGTHS[batch] for batch in plan_epoch(RANDOM_LENGTHS, config, seed=3, epoch=0).batches())
    assert (len(full), len(rest)) == (33, 10)
    assert all(np.ptp(batch) < 40 for batch in full)
    assert np.ptp(rest) > 100


@given(LENGTHS.filter(len), st.integers(1, 9), st.data())
def test_shares_of_all_ranks_are_the_batch_and_about_equal(lengths, world_size, data):
    items = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), unique=True)), np.int64)
    shares = [share_of_rank(items, lengths, rank, world_size) for rank in range(world_size)]
    assert ascending(np.concatenate(shares)) == ascending(items)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    # Dealt to and fro, two ranks never differ by more than the longest item.
    tokens = [int(lengths[share].sum()) for share in shares]
    assert max(tokens) - min(tokens) <= lengths[items].max(initial=0)


def test_ranks_hold_about_as_many_tokens():
    batch = np.arange(64)
    tokens = [RANDOM_LENGTHS[share_of_rank(batch, RANDOM_LENGTHS, rank, 4)].sum() for rank in range(4)]
    assert max(tokens) - min(tokens) < 0.02 * sum(tokens) / 4


@given(LENGTHS.filter(len), st.data(), st.one_of(st.none(), st.integers(1, 4000)), st.sampled_from([1, 8, 16]))
def test_micro_batches_are_the_items_and_keep_the_limit(lengths, data, limit, multiple):
    items = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), unique=True)), np.int64)
    groups = micro_batches(items, lengths, max_tokens=limit, multiple=multiple, max_length=384)
    assert ascending(np.concatenate([items[:0], *groups])) == ascending(items)
    assert all(len(group) for group in groups)
    sizes = [len(group) * padded_length(int(lengths[group].max()), multiple, 384) for group in groups]
    if limit is None:
        assert len(groups) == bool(len(items))
    else:
        assert all(size <= limit or len(group) == 1 for size, group in zip(sizes, groups, strict=True))


def test_micro_batches_count_padded_tokens():
    groups = micro_batches(np.arange(4), np.array([9, 9, 9, 9]), max_tokens=36, multiple=8, max_length=384)
    assert [len(group) for group in groups] == [2, 2]


def test_micro_batches_hold_as_many_windows_as_fit():
    lengths = np.array([10, 20, 30, 40, 50, 60])
    groups = micro_batches(np.arange(6), lengths, max_tokens=128, multiple=8, max_length=384)
    assert [group.tolist() for group in groups] == [[5, 4], [3, 2, 1], [0]]
    (whole,) = micro_batches(np.arange(6), lengths, max_tokens=64 * 6, multiple=8, max_length=384)
    assert ascending(whole) == list(range(6))


@given(st.integers(0, 600), st.integers(1, 64), st.integers(1, 512))
def test_padded_length_is_a_multiple_that_never_passes_the_limit(length, multiple, max_length):
    padded = padded_length(length, multiple, max_length)
    assert padded >= length
    assert padded - length < multiple
    if length <= max_length:
        assert padded <= max_length
        assert padded % multiple == 0 or padded == max_length
    else:
        assert padded == length


def test_padded_length_bounds_the_number_of_shapes():
    assert {padded_length(length, 8, 381) for length in range(1, 382)} == {*range(8, 381, 8), 381}


@pytest.mark.parametrize(
    "file",
    [f"{SAMPLE}/train.json", f"{SQUAD}/train-v1.1.json", f"{SQUAD}/train-v2.0.json"],
    ids=lambda file: file[-15:],
)
def test_padding_is_little_more_than_rounding_up(file):
    tokenizer = FAMILIES["bert"].tokenizer()
    corpus = corpus_of(read_file(file), tokenizer)
    lengths = make_windows(corpus, WindowConfig(), FAMILIES["bert"].template()).length
    plan = plan_epoch(lengths, BatchConfig(), seed=42, epoch=0)
    padded = sum(len(batch) * padded_length(int(lengths[batch].max()), 8, 384) for batch in plan.batches())
    rounded = sum(padded_length(length, 8, 384) for length in lengths.tolist())
    assert 1 - rounded / padded <= 0.02


def test_tokens_of_an_epoch_are_counted_with_their_padding():
    config = BatchConfig(size=3, pad_to_multiple_of=8, length_pool=4)
    lengths = np.array([5, 9, 30, 12, 6, 7, 17])
    plan = plan_epoch(lengths, config, seed=0, epoch=0)
    # Batches of similar padded length: six of the seven windows in two batches, and one for itself.
    widths = [-(-int(lengths[batch].max()) // 8) * 8 for batch in plan.batches()]
    by_hand = 3 * widths[0] + 3 * widths[1] + widths[2]
    assert padded_tokens(plan, lengths, max_tokens=None, multiple=8, max_length=64) == by_hand


@given(LENGTHS, CONFIGS, st.one_of(st.none(), st.integers(1, 2000)), st.integers(1, 64))
def test_counted_tokens_are_those_of_the_micro_batches(lengths, config, max_tokens, multiple):
    plan = plan_epoch(lengths, config, seed=0, epoch=0)
    limits = {"max_tokens": max_tokens, "multiple": multiple, "max_length": 384}
    groups = [group for batch in plan.batches() for group in micro_batches(batch, lengths, **limits)]
    expected = sum(len(group) * padded_length(int(lengths[group].max()), multiple, 384) for group in groups)
    assert padded_tokens(plan, lengths, **limits) == expected
