"""Passages are counted, grouped and cut into tables without losing any."""

import pytest

from qa_ray.data.passages import to_tables
from qa_ray.schema import PASSAGES, Answer, Passage, Problem, Question, passages_to_table, table_to_passages

PROBLEM = Problem("f line 1", "line", "'x'", "is not JSON")


def passage(context, *ids):
    answers = (Answer("é", 0), Answer("b", 1))
    return Passage(context, tuple(Question(identifier, "q", answers, f"row {identifier}") for identifier in ids))


@pytest.mark.parametrize("problems", [[], [PROBLEM, PROBLEM]], ids=["sound", "problems"])
@pytest.mark.parametrize(
    "passages", [[], [passage("")], [passage("c", "1", "2"), passage("d"), passage("", "3")]], ids=len
)
def test_passages_and_problems_survive_the_way_to_a_table_and_back(passages, problems):
    table = passages_to_table(passages, problems)
    assert table.schema == PASSAGES
    assert table.num_rows == len(passages) + bool(problems)
    assert table_to_passages(table) == (passages, problems)


def test_a_context_comes_once_in_a_table_in_order_of_appearance():
    (table,) = to_tables([passage("c", "1"), PROBLEM, passage("d", "2"), passage("c", "3")])
    assert table_to_passages(table) == ([passage("c", "1", "3"), passage("d", "2")], [PROBLEM])


@pytest.mark.parametrize(
    "make", [lambda index: passage(str(index), "1"), lambda _: PROBLEM], ids=["passage", "problem"]
)
def test_tables_stay_small(make):
    tables = [table_to_passages(table) for table in to_tables(make(index) for index in range(600))]
    assert [len(passages) + len(problems) for passages, problems in tables] == [256, 256, 88]
