import numpy as np
import pytest
from evaluations import table_of

from qa_ray.errors import DataError
from qa_ray.evaluation.comparison import Flip, compare, headline_scores


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
    with pytest.raises(DataError, match="not answered the same questions: 2 and 3, of which 2 are the same"):
        compare(table_of([1, 0]), table_of([1, 0, 1]), "other")
