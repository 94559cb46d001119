"""CSV and TSV keep every character of their cells, and an open quote swallows no row behind it."""

import pandas as pd
import pytest
from flat_rows import read

TEXT = 'He said: "Ann, come."'


def cells(passages):
    return [(passage.context, question.text) for passage in passages for question in passage.questions]


@pytest.mark.parametrize("name", ["f.csv", "f.tsv"])
def test_cells_are_as_pandas_writes_them(tmp_path, name):
    contexts = [TEXT, f'"{TEXT}"', "tab\tand, comma", "two\nlines", "'", '"', "a\r\nb"]
    frame = pd.DataFrame({"context": contexts, "question": contexts, "answers": None})
    frame.to_csv(tmp_path / name, sep="\t" if name == "f.tsv" else ",", index=False)
    passages, problems = read(tmp_path / name)
    assert problems == []
    assert cells(passages) == [(text, text) for text in contexts]


def test_tsv_without_quoting_keeps_its_quotes(tmp_path):
    lines = ["context\tquestion\tanswers\tanswer_start", '"Ann" ran.\t"Who" ran?\tAnn\t1', "Bob.\tWho?\tBob\t0"]
    (tmp_path / "f.tsv").write_text("\n".join(lines))
    passages, problems = read(tmp_path / "f.tsv")
    assert problems == []
    assert cells(passages) == [('"Ann" ran.', '"Who" ran?'), ("Bob.", "Who?")]


@pytest.mark.parametrize("name", ["f.csv", "f.tsv"])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_open_quote_swallows_no_row_behind_it(tmp_path, name, place):
    rows = [["id", "context", "question", "answers"], *([str(number), "c", '"q"', "[]"] for number in range(3))]
    rows.insert(1 + place, ["x", '"c', "q", "more", "[]"])
    sign = "," if name == "f.csv" else "\t"
    (tmp_path / name).write_text("".join(f"{sign.join(row)}\n" for row in rows))
    passages, (problem,) = read(tmp_path / name)
    assert cells(passages) == [("c", "q")] * 3
    assert (problem.record, problem.field) == (f"{name} row {place}", "row")
    assert "is a quote left open?" in problem.message
