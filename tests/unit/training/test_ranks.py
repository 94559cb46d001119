import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch


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
