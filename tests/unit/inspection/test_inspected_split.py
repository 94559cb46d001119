"""Figures of a split, counted by hand, and questions that came before."""

from pathlib import Path

import numpy as np
import pytest
from inspections import configured, inspected, passage

from qa_ray.inspection.split import figures, spread
from qa_ray.schema import Problem

RIVER = "the river flows through the old town"
BRIDGE = "the old bridge is in the town"


def test_figures_are_those_counted_by_hand(bert: Path) -> None:
    config = configured(bert, batch={"size": 2, "pad_to_multiple_of": 8})
    found = figures(
        inspected(
            config,
            [
                passage(RIVER, ("river ?", ["the river", "river"]), ("town ?", ["the old town"])),
                passage(BRIDGE, ("the river town ?", [])),
            ],
            problems=[Problem("row 9", "id", "''", "is empty"), Problem("row 9", "question", "''", "is empty")],
        ),
        config,
    )
    # Windows of 3 special tokens, 2 and 7; 3, 2 and 7; 3, 4 and 7. Batches of two are padded to 16.
    assert found == {
        "location": "train.json",
        "questions": 3,
        "several_answers": 1,
        "unanswerable": 1,
        "rows_left_out": 1,
        "contexts": 2,
        "question_tokens": {"median": 2.0, "p95": 4, "most": 4},
        "context_tokens": {"median": 7.0, "p95": 7, "most": 7},
        "answer_tokens": {"median": 2.5, "p95": 3, "most": 3},
        "windows": 3,
        "epoch_tokens": 48,
        "padding": pytest.approx(1 - (12 + 12 + 14) / 48),
    }


def test_tokens_of_an_epoch_are_told_of_training_only(bert: Path) -> None:
    config = configured(bert)
    found = figures(inspected(config, [passage(RIVER, ("river ?", []))], "validation"), config)
    assert "epoch_tokens" not in found
    assert found["answer_tokens"] == {"median": 0, "p95": 0, "most": 0}


def test_spread_names_lengths_that_are_there() -> None:
    assert spread(np.arange(1, 101)) == {"median": 50.5, "p95": 95, "most": 100}


def test_question_is_asked_again_where_words_and_context_are_the_same(bert: Path) -> None:
    split = inspected(
        configured(bert),
        [
            passage(
                RIVER,
                ("river ?", ["the river"]),
                ("town ?", ["old town"]),
                ("river ?", ["town"]),  # 2: another answer
                ("river ?", []),  # 3: none
                ("river ?", ["town", "river"]),  # 4: one in common, but for its article
            ),
            passage(BRIDGE, ("river ?", [])),
            # The same context, read from another place: 6 and 7.
            passage(RIVER, ("town ?", ["old town"]), ("river ", [])),
        ],
    )
    repeats = split.repeats
    assert repeats.again.tolist() == [2, 3, 4, 6]
    assert repeats.first.tolist() == [0, 0, 0, 1]
    assert repeats.contradicts.tolist() == [True, True, False, False]
    assert len(split.contexts) == 2
    assert split.context_lengths.tolist() == [7, 7]


def test_two_that_both_have_no_answer_do_not_contradict(bert: Path) -> None:
    split = inspected(configured(bert), [passage(RIVER, ("river ?", []), ("river ?", []))])
    assert split.repeats.contradicts.tolist() == [False]


def test_questions_on_a_context_of_the_other_split_are_found(bert: Path) -> None:
    config = configured(bert)
    train = inspected(config, [passage(RIVER, ("river ?", [])), passage(BRIDGE, ("town ?", []))])
    other = "the town"
    validation = inspected(
        config, [passage(other, ("town ?", [])), passage(f" {BRIDGE}\n", ("bridge ?", []), ("old ?", []))], "validation"
    )
    assert validation.in_common(train).tolist() == [1, 2]
    assert train.in_common(validation).tolist() == [1]
