"""The small files that public tools left, beside the repository, have the values that stand beside them."""

from pathlib import Path

import pytest
from flat_rows import read

from qa_ray.config.policies import ImpossibleAnswers

CASES = Path(__file__).parents[3] / "../shared/cases"
RIVER, STONE = ("Vltava", 55), ("1357", 134)

EXPECTED = {
    "array_of_rows.json": {"1": [RIVER], "2": [STONE]},
    "run_qa_flat.json": {"1": [RIVER], "2": [STONE]},
    "jsonl_named.json": {"1": [RIVER], "2": [STONE]},
    "rows.jsonl.gz": {"1": [RIVER], "2": [STONE]},
    "datasets_to_csv.csv": {"1": [RIVER]},
    "haystack_export.json": {"4": [RIVER], "6": [], "7": [], "8": []},
    "one_nan_row.jsonl": {**{str(number): [RIVER] for number in range(5)}, "nan": []},
    "one_liststr_row.jsonl": {str(number): [RIVER] for number in range(5)},
    "flat_is_impossible.jsonl": {"1": [RIVER]},
}
ODD = {"one_liststr_row.jsonl": ["line 6"], "flat_is_impossible.jsonl": ["line 2"]}


def questions(name, **options):
    if not (CASES / name).exists():
        pytest.skip(f"needs {name} in {CASES}")
    passages, problems = read(CASES / name, **options)
    found = {question.id: question.answers for passage in passages for question in passage.questions}
    return {key: [(one.text, one.answer_start) for one in answers] for key, answers in found.items()}, problems


@pytest.mark.parametrize("name", EXPECTED)
def test_case_has_its_right_value(name):
    found, problems = questions(name)
    assert found == EXPECTED[name]
    assert [problem.record for problem in problems] == [f"{name} {place}" for place in ODD.get(name, [])]


def test_plausible_answers_may_be_ignored():
    found, problems = questions("flat_is_impossible.jsonl", impossible_answers=ImpossibleAnswers.IGNORE)
    assert (found, problems) == ({"1": [RIVER], "2": []}, [])
