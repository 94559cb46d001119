"""What is said of the data before a run starts."""

from pathlib import Path

from small_runs import changed, make_collator, tiny_config

from qa_ray.runs.preparation import data_notes
from qa_ray.schema import Answer, Passage, Question

WORDS = ["river"] * 60
PASSAGE = Passage(
    " ".join(WORDS),
    (
        Question("1", "Which town?", (Answer(" ".join(WORDS[:40]), 0),), "row 1"),
        Question("2", "Which town?", (Answer("river", 6),), "row 2"),
    ),
)


def test_answers_out_of_reach_are_told_and_otherwise_nothing(bert: Path) -> None:
    config = changed(tiny_config(bert), evaluate={"max_answer_length": 30})
    lost, long = data_notes(config, make_collator(config, [PASSAGE]))
    assert lost.startswith("whole in no window: 1 of 2 answers (up to 40 tokens), ")
    assert long.startswith("longer than evaluate.max_answer_length=30: 1 of 2 answers (up to 40 tokens), ")
    wide = changed(config, window={"max_length": 128}, evaluate={"max_answer_length": 40})
    assert data_notes(wide, make_collator(wide, [PASSAGE])) == []
