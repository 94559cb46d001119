"""Each kind of row to look at is found, with what is to be said of it, and no other."""

from pathlib import Path

from inspections import configured, inspected, passage

from qa_ray.inspection.findings import find

TOWNS = " ".join(["town"] * 60)
RIVERS = " ".join(["river"] * 4)


def test_every_kind_is_found_by_its_questions(bert: Path) -> None:
    config = configured(bert, evaluate={"max_answer_length": 30})
    train = inspected(
        config,
        [
            passage(
                TOWNS,
                ("town ?", [TOWNS[: 5 * 31 - 1]]),  # 0: 31 tokens, more than a window holds
                ("old ?", ["town"]),
                (" ".join(["old"] * 20), ["town"]),  # 2: leaves no room for the context
                ("old ?", []),  # 3: asked again
            ),
            passage(RIVERS, ("old ?", [RIVERS]), ("\u200b", [])),  # 4: all of it; 5: nothing
        ],
    )
    found = {finding.key: finding for finding in find(train, config, train)}
    assert {key: finding.questions.tolist() for key, finding in found.items()} == {
        "whole_in_no_window": [0],
        "question_cut": [2],
        "longer_than_max_answer_length": [0],
        "asked_again": [3],
        "asked_again_with_another_answer": [3],
        "no_tokens": [5],
        "answer_is_context": [4],
    }
    totals = {key: finding.total for key, finding in found.items()}
    assert totals["whole_in_no_window"] == totals["longer_than_max_answer_length"] == 4
    assert totals["asked_again"] == 6
    assert found["whole_in_no_window"].note(0).startswith("31 tokens: 'town town ")
    # 32 tokens, of which 3 are special, 8 are shared, and an eighth of the window is the step.
    assert found["question_cut"].note(2) == "20 tokens, the first 17 are used"
    assert found["asked_again"].note(3) == "first in town town row 1"
    assert found["asked_again_with_another_answer"].note(3) == "no answer here, 'town' in town town row 1"
    assert found["longer_than_max_answer_length"].heading == "answer longer than 30 tokens"


def test_validation_questions_on_contexts_of_train_are_found(bert: Path) -> None:
    config = configured(bert)
    train = inspected(config, [passage(RIVERS, ("old ?", []))])
    validation = inspected(config, [passage("the town", ("old ?", [])), passage(RIVERS, ("town ?", []))], "validation")
    found = {finding.key: finding.questions.tolist() for finding in find(validation, config, train)}
    assert found["context_in_train"] == [1]
    assert "context_in_train" not in {finding.key for finding in find(validation, config, None)}
