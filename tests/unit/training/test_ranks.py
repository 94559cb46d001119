import math
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

from qa_ray.config.fine_tuning import BatchConfig, TrainConfig
from qa_ray.data.batching import plan_epoch
from qa_ray.training.snapshot import enter


@pytest.fixture(scope="module")
def ranks(bert, saved, tmp_path_factory):
    """What one, two and three processes made of the same run."""
    out = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("ranks.py")
    command = [sys.executable, str(script), str(bert), str(saved("xlnet")), str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return {
        size: [torch.load(out / f"{size}-{rank}.pt", weights_only=False) for rank in range(size)] for size in (1, 2, 3)
    }


SCENARIOS = ["bert", "bert-micro-batches", "xlnet"]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ranks_train_what_one_process_trains(ranks, scenario, size):
    alone, together = ranks[1][0][scenario], [rank[scenario] for rank in ranks[size]]
    assert together[0]["losses"] == pytest.approx(alone["losses"], rel=1e-5, abs=1e-5)
    assert len(alone["losses"]) == 2 * math.ceil(9 / 4)
    for rank in together:
        torch.testing.assert_close(rank["weights"], alone["weights"], rtol=0, atol=1e-5)
        assert torch.equal(rank["weights"], together[0]["weights"])
    moved = (alone["weights"] - alone["weights_before"]).abs().max()
    assert moved > 1e-3, "the weights must have moved by more than the tolerance"


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ranks_share_out_every_window_once_an_epoch(ranks, scenario, size):
    together = [rank[scenario]["windows"] for rank in ranks[size]]
    trained = sorted(window for rank in together for window in rank)
    assert trained == sorted([*range(9), *range(9)])
    # The last batch has one window: the other ranks have no share in it, and make the step all the same.
    assert len({len(rank) for rank in together}) > 1


def test_ranks_evaluate_what_one_process_evaluates(ranks):
    alone = ranks[1][0]["evaluation"]
    assert 0 < len(alone.predictions) < 3, "with three ranks, one must have nothing to evaluate"
    for size in (2, 3):
        assert [rank["evaluation"] for rank in ranks[size][1:]] == [None] * (size - 1)
        together = ranks[size][0]["evaluation"]
        assert together.predictions == alone.predictions
        assert list(together.n_best) == list(alone.n_best)
        assert together.metrics == pytest.approx(alone.metrics, rel=1e-5)
        assert together.null_odds == pytest.approx(alone.null_odds, rel=1e-4, abs=1e-5)
        for key, candidates in alone.n_best.items():
            assert [span.text for span in together.n_best[key]] == [span.text for span in candidates]
            assert [span.probability for span in together.n_best[key]] == pytest.approx(
                [span.probability for span in candidates], rel=1e-4
            )


def test_ranks_whose_devices_hold_little_train_what_they_would_with_those_limits_from_the_start(ranks):
    for size in (2, 3):
        together = [rank["small-devices"] for rank in ranks[size]]
        limits = {rank["met"]["limit"] for rank in together}
        assert limits != {None}
        for rank in together:
            assert torch.equal(rank["met"]["weights"], rank["foreseen"]["weights"])
            assert torch.equal(rank["met"]["weights"], together[0]["met"]["weights"])
    assert (
        len(
            {
                rank["small-devices"][name]["ledger"]
                for size in ranks
                for rank in ranks[size]
                for name in rank["small-devices"]
            }
        )
        == 1
    )


RESUMED = ["resumed", "resumed-dropout"]
STOP = 2


def planned(lengths):
    """The batches of two epochs, as the plan alone has them."""
    plans = [plan_epoch(lengths, BatchConfig(size=4), seed=TrainConfig().seed, epoch=epoch) for epoch in (0, 1)]
    return [batch for plan in plans for batch in plan.batches()]


def steps_of(ranks, part):
    """The windows of each step, over all ranks."""
    return [sorted(chain(*shares)) for shares in zip(*(rank[part]["steps"] for rank in ranks), strict=True)]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("scenario", RESUMED)
def test_run_of_two_ranks_goes_on_with_the_rest_of_its_batches_on_any_number(ranks, scenario, size):
    before, after = ([rank[scenario] for rank in ranks[number]] for number in (2, size))
    plan = [sorted(batch.tolist()) for batch in planned(after[0]["resumed"]["lengths"])]
    trained = steps_of(before, "stopped") + steps_of(after, "resumed")
    assert len(before[0]["stopped"]["steps"]) == STOP
    assert trained == plan
    for epoch in (trained[:3], trained[3:]):
        assert sorted(chain(*epoch)) == list(range(9))


@pytest.mark.parametrize("scenario", RESUMED)
def test_ledger_is_that_of_the_plan_on_any_number_of_ranks(ranks, scenario):
    ledgers = {rank[scenario]["resumed"]["ledger"] for size in ranks for rank in ranks[size]}
    ledgers |= {rank[scenario]["undisturbed"]["ledger"] for rank in ranks[2]}
    expected = ""
    for batch in planned(ranks[1][0][scenario]["resumed"]["lengths"]):
        expected = enter(expected, batch)
    assert ledgers == {expected}
    assert ranks[2][0][scenario]["stopped"]["ledger"] not in ledgers


def test_ledger_tells_batches_and_their_order_apart():
    first, second = torch.arange(4).numpy(), torch.arange(4, 8).numpy()
    ledgers = [enter(enter("", a), b) for a, b in ((first, second), (second, first), (first, first))]
    ledgers += [enter("", first), enter("", first[::-1].copy())]
    assert len(set(ledgers)) == len(ledgers)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_run_that_goes_on_with_other_ranks_ends_with_the_same_weights(ranks, size):
    undisturbed = ranks[2][0]["resumed"]["undisturbed"]
    for rank in ranks[size]:
        resumed = rank["resumed"]["resumed"]
        torch.testing.assert_close(resumed["weights"], undisturbed["weights"], rtol=0, atol=1e-5)
    # The first record covers steps on both sides of the stop.
    main = ranks[size][0]["resumed"]["resumed"]
    assert main["losses"] == pytest.approx(undisturbed["losses"], rel=1e-5)
    assert len(main["losses"]) == 2


@pytest.mark.parametrize("scenario", RESUMED)
def test_run_that_goes_on_with_as_many_ranks_is_the_same_bit_for_bit(ranks, scenario):
    assert not torch.equal(*(ranks[2][0][name]["undisturbed"]["weights"] for name in RESUMED)), "nothing was dropped"
    for rank in ranks[2]:
        undisturbed, resumed = rank[scenario]["undisturbed"], rank[scenario]["resumed"]
        assert torch.equal(resumed["weights"], undisturbed["weights"])
        assert resumed["losses"] == undisturbed["losses"]
        assert resumed["steps"] == undisturbed["steps"][STOP:]


def test_ranks_that_go_on_draw_random_numbers_of_their_own(ranks):
    states = [rank["resumed"]["resumed"]["random_state"] for size in (2, 3) for rank in ranks[size]]
    assert len(set(states)) == 5
