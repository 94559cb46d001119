"""Which validation questions the end of a run shows, how they are shown, and the command below them."""

import dataclasses
import itertools
import shlex
import sys
from pathlib import Path

import pytest
from evaluations import Asked, evaluation_of

from qa_ray.answers.marking import Excerpt
from qa_ray.config.policies import Language
from qa_ray.runs.conclusion import summary
from qa_ray.runs.examples import choose_examples, shown
from qa_ray.runs.resume import Example, TrainResult
from qa_ray.scores.question_table import tabulate

RIGHT = Asked("Where did Ada go?", "She slept. Ada went to Rome by train. It rained.", "Rome", "Rome")
PARTLY = Asked("Who went?", "Ada Byron went to Rome by train.", "Ada Byron", "Byron")
WRONG = Asked("Where did Bo go?", "Bo went to Bern late.", "Bern", "late")
SILENT = Asked("Where did Cem go?", "Cem went to Lima.", None, "Lima", null_odds=4)
MISSED = Asked("Where did Dee go?", "Dee went to Oslo.", "Oslo", "Oslo", null_odds=4)
INVENTED = Asked("Where did Eva go?", "Eva went to Riga.", None, "Riga")


def chosen(*asked: Asked, no_answer: bool = True) -> list[Example]:
    return choose_examples(tabulate(*evaluation_of(list(asked), no_answer=no_answer)))


def questions(examples: list[Example]) -> list[str]:
    return [example.question for example in examples]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([WRONG] * 9 + [RIGHT] * 9 + [SILENT] * 9, [RIGHT, RIGHT, RIGHT, SILENT, WRONG]),
        ([WRONG] * 9 + [RIGHT] * 9, [RIGHT, RIGHT, RIGHT, RIGHT, WRONG]),
        ([RIGHT] * 9, [RIGHT] * 5),
        ([WRONG] * 9, [WRONG] * 5),
        ([WRONG] * 9 + [RIGHT], [RIGHT, WRONG, WRONG, WRONG, WRONG]),
        ([SILENT] * 9 + [MISSED], [SILENT, SILENT, SILENT, SILENT, MISSED]),
        ([WRONG, RIGHT], [RIGHT, WRONG]),
    ],
    ids=["mixed", "all have answers", "all right", "all wrong", "one right", "none answered", "two questions"],
)
def test_four_right_answers_and_a_wrong_one_are_chosen_where_there_are_such(
    asked: list[Asked], expected: list[Asked]
) -> None:
    assert questions(chosen(*asked)) == [one.question for one in expected]


def test_questions_are_spread_over_the_split() -> None:
    numbered = [dataclasses.replace(RIGHT, question=str(number)) for number in range(100)]
    found = sorted(int(question) for question in questions(chosen(*numbered)))
    assert all(later - sooner >= 5 for sooner, later in itertools.pairwise(found))
    assert found[0] < 30
    assert found[-1] >= 70


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (RIGHT, ["  right   Where did Ada go?", "          Ada went to [[Rome]] by train."]),
        (
            PARTLY,
            ["  in part Who went?", "          Ada [[Byron]] went to Rome by train.", "          expected: Ada Byron"],
        ),
        (WRONG, ["  wrong   Where did Bo go?", "          Bo went to Bern [[late]].", "          expected: Bern"]),
        (SILENT, ["  right   Where did Cem go?", "          no answer"]),
        (MISSED, ["  wrong   Where did Dee go?", "          no answer", "          expected: Oslo"]),
        (
            INVENTED,
            ["  wrong   Where did Eva go?", "          Eva went to [[Riga]].", "          expected: no answer"],
        ),
    ],
    ids=["right", "in part", "wrong", "no answer", "missed", "invented"],
)
def test_answer_is_marked_and_the_expected_one_shown_where_it_was_missed(asked: Asked, expected: list[str]) -> None:
    # Another one, for a data set must hold an answer.
    example = next(one for one in chosen(asked, RIGHT) if one.question == asked.question)
    assert shown(example, colour=False) == expected
    coloured = shown(example, colour=True)
    assert "\x1b[1;3" in coloured[0]
    assert "[[" not in "".join(coloured)


def test_rule_of_the_run_decides_what_is_right() -> None:
    example = Example("Where?", "北京（", ["北京"], language=Language.CHINESE)
    assert shown(example, colour=False)[0] == "  right   Where?"
    assert shown(dataclasses.replace(example, language=Language.SQUAD), colour=False)[0] == "  wrong   Where?"
    table = tabulate(*evaluation_of([Asked("Where?", "北京", "北京", "北京")], language=Language.CHINESE))
    assert choose_examples(table)[0].language is Language.CHINESE


def test_example_of_an_older_result_is_shown_without_its_sentence() -> None:
    older = Example("Who?", "Ada", ["Ada"])
    assert shown(older, colour=False) == ["  right   Who?", "          [[Ada]]"]


def result_in(folder: str) -> TrainResult:
    return TrainResult(
        folder=folder,
        epochs=3,
        step=12,
        before={"eval_f1": 1.5, "eval_exact_match": 0.5},
        best={"eval_f1": 81.25, "eval_exact_match": 70.0},
        examples=[Example("Where did Ada go?", "Rome", ["Rome"], Excerpt("Ada went to ", "Rome", "."))],
        record="not recorded",
        ledger="abc",
        data="d1",
    )


def test_model_in_an_object_store_is_asked_where_mlflow_has_it() -> None:
    stored = result_in("s3://bucket/runs/one")
    assert "qa-ray ask" not in summary(stored)
    last = summary(dataclasses.replace(stored, logged_model="models:/m-1")).splitlines()[-1]
    assert shlex.split(last)[1:3] == ["ask", "models:/m-1"]


@pytest.mark.parametrize("folder", ["runs/one", "my runs/it's one"])
def test_last_line_is_the_command_that_asks_the_model(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = summary(result_in(str(tmp_path / folder))).splitlines()
    program, ask, model, question, option, text = shlex.split(lines[-1])
    assert Path(program).name == "qa-ray"
    assert (ask, model, question, option) == ("ask", folder, "Who wrote Frankenstein?", "--text")
    assert "Mary Shelley" in text
    assert "  right   Where did Ada go?" in lines
    assert "          Ada went to [[Rome]]." in lines
    assert [line.split() for line in lines if line.startswith(("before", "after"))] == [
        ["before", "0.50", "1.50"],
        ["after", "70.00", "81.25"],
    ]
    assert any(line.startswith("report ") and "evaluation/report.html" in line for line in lines)


def test_command_is_found_beside_python_where_the_path_does_not_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    assert summary(result_in("runs/one")).splitlines()[-1].startswith("  venv/bin/qa-ray ask runs/one ")
    script = tmp_path / "qa-ray"
    script.touch()
    script.chmod(0o755)
    assert summary(result_in("runs/one")).splitlines()[-1].startswith("  qa-ray ask runs/one ")
