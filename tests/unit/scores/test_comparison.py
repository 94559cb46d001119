import numpy as np
import pytest
from evaluations import table_of

from qa_ray.config.policies import Language
from qa_ray.errors import DataError
from qa_ray.scores.intervals import Difference, Flip, compare, headline_scores, verdict


def test_flips_are_the_questions_that_one_model_alone_answers() -> None:
    found = compare(table_of([1, 0, 1, 0]), table_of([1, 1, 0, 0]), "other", num_resamples=50)
    assert found.flips == (Flip(1, won=False), Flip(2, won=True))
    assert found.differences["exact_match"].mean == 0
    assert found.scores["f1"].mean == 50


def test_groups_are_compared_where_no_answer_may_be_predicted() -> None:
    columns = {"has_answer": np.array([True, True, False, False]), "threshold": 0.0}
    found = compare(table_of([1, 0, 1, 1], **columns), table_of([0, 0, 1, 1], **columns), "other", num_resamples=50)
    means = {name: difference.mean for name, difference in found.differences.items()}
    assert means == {"exact_match": 25, "f1": 25, "HasAns_exact": 50, "HasAns_f1": 50, "NoAns_exact": 0, "NoAns_f1": 0}


def test_group_without_questions_is_left_out() -> None:
    assert set(headline_scores(table_of([1, 0], threshold=0.0), num_resamples=5)) == {
        "exact_match",
        "f1",
        "HasAns_exact",
        "HasAns_f1",
    }


def test_other_questions_cannot_be_compared() -> None:
    words = "cannot be compared on the same questions: 2 and 3 can be used, of which 2 are the same"
    with pytest.raises(DataError, match=words):
        compare(table_of([1, 0]), table_of([1, 0, 1]), "other")


def test_scores_by_different_rules_cannot_be_compared() -> None:
    words = "scores by SQuAD's definition and by MLQA's rule for zh cannot be compared"
    with pytest.raises(DataError, match=words):
        compare(table_of([1, 0]), table_of([1, 0], language=Language.CHINESE), "other")
    chinese = table_of([1, 0], language=Language.CHINESE)
    assert compare(chinese, chinese, "other", num_resamples=50).flips == ()


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 2, "A is better: the 95% interval of the difference lies above 0"),
        (-2, -0.1, "B is better: the 95% interval of the difference lies below 0"),
        (0.0, 2, "these questions do not tell which model is better"),
        (-2, 0.0, "these questions do not tell which model is better"),
    ],
)
def test_model_is_better_where_the_interval_leaves_out_nought(low: float, high: float, words: str) -> None:
    assert verdict(Difference(1, low, high, 0.9), "A", "B").startswith(words)


def test_scores_of_the_other_model_are_its_own() -> None:
    found = compare(table_of([1, 1, 1, 0]), table_of([1, 0, 0, 0]), "other", num_resamples=50)
    assert found.scores["exact_match"].mean == 25
    assert found.differences["exact_match"].mean == 50


def test_as_many_but_other_questions_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="2 and 2 can be used, of which 1 are the same"):
        compare(table_of([1, 0]), table_of([1, 0], ids=["q0", "q9"]), "other")
