"""A share of the questions is the same one, whatever their order."""

import random

from qa_ray.data.subset import random_share

IDS = [f"question {number}" for number in range(1000)]


def chosen(ids: list[str], share: float) -> set[str]:
    return {ids[place] for place in random_share(ids, share)}


def test_share_does_not_depend_on_the_order_and_grows_by_more_of_them() -> None:
    shuffled = random.Random(0).sample(IDS, len(IDS))
    assert chosen(IDS, 0.1) == chosen(shuffled, 0.1)
    assert len(chosen(IDS, 0.1)) == 100
    assert chosen(IDS, 0.1) < chosen(IDS, 0.25)
    assert list(random_share(IDS, 0.1)) == sorted(random_share(IDS, 0.1))


def test_share_is_spread_over_all_questions() -> None:
    tenths = [sum(place // 100 == tenth for place in random_share(IDS, 0.5)) for tenth in range(10)]
    assert min(tenths) > 30
    assert max(tenths) < 70


def test_share_holds_at_least_one_question() -> None:
    assert len(random_share(IDS, 1e-9)) == 1
    assert list(random_share(IDS, 1.0)) == list(range(1000))
