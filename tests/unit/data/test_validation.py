"""Every fault of a row is found, and told in words that lead to its repair."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_ray.data.validation import check, describe, first_uses, is_fatal, write_problems
from qa_ray.schema import Answer, Passage, Problem, Question

CONTEXT = "Zoë met Ann. Later Ann met Bob."


def question(*answers, identifier="q1", text="Who?"):
    return Question(identifier, text, tuple(Answer(*answer) for answer in answers), "f.jsonl line 1")


@pytest.mark.parametrize(
    "sound",
    [question(), question(("Zoë", 0)), question(("Bob.", 27)), question(("Ann", 8), ("Ann", 19))],
    ids=["no-answer", "first-word", "last-word", "two-answers"],
)
def test_sound_question_is_kept(sound):
    passage = Passage(CONTEXT, (sound,))
    assert check(passage) == (passage, [])


@pytest.mark.parametrize(
    ("bad", "field", "value", "message"),
    [
        (question(identifier=" "), "id", "' '", "is empty"),
        (question(text=""), "question", "''", "is empty"),
        (question(("", 0)), "answers[0].text", "''", "is empty: give the text, or no answers"),
        (question(("Zoë", 0), ("Ann", -2)), "answers[1].answer_start", "-2", "is negative"),
        (question(("Bob.", -4)), "answers[0].answer_start", "-4", "is negative; the answer 'Bob.' stands at 27"),
        (question(("Ann", 9)), "answers[0].answer_start", "9", "there stands 'nn.'; the answer 'Ann' stands at 8"),
        (question(("Ann", 17)), "answers[0].answer_start", "17", "set answer_start to 19 (characters are counted"),
        (question(("Ann", 99)), "answers[0].answer_start", "99", "ends after 31 characters; the answer 'Ann' stands"),
        (question(("Eve", 4)), "answers[0].answer_start", "4", "there stands 'met'; the answer 'Eve' is nowhere"),
        (question(("Ann. Later", 19)), "answers[0].answer_start", "19", "stands at 8: set answer_start to 8"),
    ],
)
def test_problem_names_record_field_value_and_remedy(bad, field, value, message):
    kept = question(("Ann", 8), identifier="kept")
    passage, (problem,) = check(Passage(CONTEXT, (bad, kept)))
    assert passage == Passage(CONTEXT, (kept,))
    assert (problem.record, problem.field, problem.value) == ("f.jsonl line 1", field, value)
    assert message in problem.message


def test_every_question_about_a_blank_context_is_told_of():
    passage, problems = check(Passage(" \n", (question(("x", 0)), question(identifier="q2"))))
    assert passage.questions == ()
    assert [problem.field for problem in problems] == ["context", "context"]


@settings(deadline=None)
@given(st.text(min_size=1), st.data())
def test_offsets_count_characters(context, data):
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    text = context[start:end]
    _, problems = check(Passage(context, (question((text, start)),)))
    assert problems == [] or not text.strip()


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefé")))
def test_an_id_is_used_once(ids):
    records = [f"row {index}" for index in range(len(ids))]
    expected = [(index, ids.index(value)) for index, value in enumerate(ids) if ids.index(value) < index]
    places, problems = first_uses(ids, records)
    assert places == [index for index, value in enumerate(ids) if ids.index(value) == index]
    assert [problem.record for problem in problems] == [f"row {index}" for index, _ in expected]
    firsts = [f"first in row {first};" for _, first in expected]
    assert all(first in problem.message for problem, first in zip(problems, firsts, strict=True))


def problems_of(count, field, message):
    return [Problem(f"f line {index}", f"answers[{index}].{field}", "7", message) for index in range(count)]


def test_description_counts_kinds_and_shows_the_first():
    problems = [*problems_of(3, "text", "is empty: mend it"), *problems_of(2, "answer_start", "is negative; mend it")]
    text = describe(problems, limit=4)
    assert "5 problems" in text
    assert "3 x answers.text is empty\n" in text
    assert "2 x answers.answer_start is negative\n" in text
    assert "f line 0: answers[0].answer_start=7: is negative; mend it" in text
    assert "answers[1].answer_start=7" not in text


def test_only_a_problem_with_a_file_stops_a_run_that_skips_bad_rows():
    assert is_fatal(Problem("f", "file", "", ""))
    assert not is_fatal(Problem("f", "text", "", ""))


def test_problems_are_written_as_json_lines(tmp_path):
    write_problems([Problem("f line 1", "id", "'é'", "is empty")] * 2, tmp_path / "bad_rows.jsonl")
    lines = (tmp_path / "bad_rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"record": "f line 1", "field": "id", "value": "'é'", "message": "is empty"}
    ] * 2
