import numpy as np
import pytest
from evaluations import table_of

from qa_ray.scores import intervals as drawing
from qa_ray.scores.analysis import groupings, slice_scores
from qa_ray.scores.intervals import (
    Interval,
    bracketed,
    compare,
    headline_scores,
    intervals,
    paired_differences,
    resampled_means,
)


def scores(shape: tuple[int, ...], chance: float, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < chance).astype(float)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    drawn = scores((400, 80), 0.7)
    covered = [found.low <= 0.7 <= found.high for found in intervals(drawn, num_resamples=500)]
    assert 0.91 < np.mean(covered) < 0.98


def test_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(size=(1, 5000))
    [found] = intervals(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(5000), rel=0.05)


def test_lower_level_gives_a_narrower_interval() -> None:
    values = scores((1, 100), 0.5)
    [wide], [narrow] = intervals(values, level=0.95), intervals(values, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_each_resample_draws_as_many_questions_as_there_are() -> None:
    values = np.eye(7)
    samples = resampled_means(values, num_resamples=50)
    # Each row's mean is how often its question was drawn, over 7.
    assert samples.sum(axis=1) == pytest.approx(np.ones(50))
    assert set(np.round(7 * samples).ravel()) <= set(range(8))
    assert len(np.unique(samples, axis=0)) > 40


def test_same_seed_gives_the_same_resamples_whatever_is_computed_at_once() -> None:
    # So many resamples are drawn in several parts.
    values = scores((3, 1000), 0.5)
    many = resampled_means(values, num_resamples=5000, seed=3)
    assert np.array_equal(many[:2500], resampled_means(values, num_resamples=2500, seed=3))
    assert not np.array_equal(many[:100], resampled_means(values, num_resamples=100, seed=4))
    assert not np.array_equal(many[:1000], many[2000:3000]), "each part draws anew"


def plain_means(values: np.ndarray, members: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """One resample after the other, each mean by itself."""
    generator, found = np.random.default_rng(seed), []
    for _ in range(num_resamples):
        drawn = generator.integers(0, values.shape[1], values.shape[1])
        rows = zip(values[:, drawn], members[:, drawn], strict=True)
        found.append([row[inside].mean() if inside.any() else np.nan for row, inside in rows])
    return np.array(found)


@pytest.mark.parametrize("bounds", [{}, {"_MULTIPLIED_AT_ONCE": 700}, {"_MOST_KEPT": 0, "_DRAWN_AT_ONCE": 90}], ids=str)
def test_means_are_those_of_the_questions_that_are_drawn(monkeypatch: pytest.MonkeyPatch, bounds: dict) -> None:
    for name, bound in bounds.items():
        monkeypatch.setattr(drawing, name, bound)
    values = np.random.default_rng(0).random((5, 40))
    members = np.stack([np.ones(40, bool), *[np.arange(40) % 9 == 1] * 2, np.arange(40) < 2, np.ones(40, bool)])
    found = resampled_means(values, members, num_resamples=70, seed=5)
    assert found == pytest.approx(plain_means(values, members, 70, 5), rel=1e-12, nan_ok=True)
    assert np.isnan(found).any()


def test_questions_are_drawn_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(
        np.random, "default_rng", lambda seed, make=np.random.default_rng: drawn.append(seed) or make(seed)
    )
    one, other = table_of([0, 1, 1] * 20), table_of([1, 0, 1] * 20)
    compare(one, other, "other", num_resamples=130, seed=11)
    headline_scores(one, num_resamples=130, seed=11)
    slice_scores(one, groupings(one), num_resamples=130, seed=11)
    assert drawn == [11]
    headline_scores(one, num_resamples=130, seed=12)
    headline_scores(one, num_resamples=131, seed=12)
    assert drawn == [11, 12, 12]


def test_only_members_count() -> None:
    values = np.array([[1.0, 1.0, 7.0, 7.0]])
    [found] = intervals(values, np.array([[True, True, False, False]]), num_resamples=200)
    assert found == (1.0, 1.0, 1.0)


def test_row_without_members_has_no_mean() -> None:
    [found] = intervals(np.ones((1, 3)), np.zeros((1, 3), bool), num_resamples=10)
    assert np.isnan(found).all()


def test_difference_of_models_that_agree_on_most_questions_is_narrower_than_unpaired_ones() -> None:
    one = scores((1, 500), 0.6)
    other = one.copy()
    other[0, :20] = 0
    [found] = paired_differences(one, other)
    assert found.mean == pytest.approx((one - other).mean())
    assert found.low > 0
    assert found.share_better == 1
    [mine], [others] = intervals(one), intervals(other)
    assert mine.low < others.high


def test_difference_of_equal_models_is_nought_and_neither_is_better() -> None:
    values = scores((2, 30), 0.5)
    assert paired_differences(values, values) == [(0, 0, 0, 0.5)] * 2


def test_share_of_resamples_won_is_near_one_half_where_the_models_win_alike() -> None:
    one = np.array([[1.0, 0.0] * 50])
    [found] = paired_differences(one, 1 - one)
    assert found.mean == 0
    assert found.low < 0 < found.high
    assert 0.4 < found.share_better < 0.6


def test_resamples_without_a_member_are_won_by_nobody_and_lost_by_nobody() -> None:
    # About every third resample of 20 questions lacks the only one that counts.
    members = np.arange(20)[None] == 7
    [found] = paired_differences(np.ones((1, 20)), np.zeros((1, 20)), members, num_resamples=200)
    assert found == (1, 1, 1, 1)


def test_row_whose_members_were_never_drawn_has_a_mean_but_no_interval() -> None:
    [times] = resampled_means(np.eye(50), num_resamples=1)
    members = np.arange(50)[None] == int(np.argmin(times))
    [found] = intervals(np.ones((1, 50)), members, num_resamples=1)
    assert (found.mean, bracketed(found)) == (1, "")


def test_interval_is_told_in_brackets() -> None:
    assert bracketed(Interval(1, -0.25, 12.34)) == "[-0.2, 12.3]"
    assert bracketed(Interval(1, -0.25, 12.34), "+.2f") == "[-0.25, +12.34]"
