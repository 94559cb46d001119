"""Python's text of dicts and lists is read as what it stands for, and nothing else is read or run."""

import numpy as np
import pytest
from flat_rows import ROWS, flat, read, write
from hypothesis import given
from hypothesis import strategies as st

from qa_ray.data.literals import parse_literal

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_what_python_writes_is_read_back(value):
    assert parse_literal(repr(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("('a', 'b',)", ["a", "b"]),
        (" [ 'it''s' ] ".replace("''", r"\'"), ["it's"]),
        ("array(['Vltava'], dtype=object)", ["Vltava"]),
        ("array([], dtype=float64)", []),
        ("array(['a'], dtype='<U1')", ["a"]),
        ("{'answer_start': array([55, 60],\n      dtype=int32)}", {"answer_start": [55, 60]}),
        ("[np.int64(-55), np.str_('a'), np.float64(1e3)]", [-55, "a", 1000.0]),
    ],
)
def test_numpy_and_tuples_are_lists(text, value):
    assert parse_literal(text) == value


def test_what_numpy_writes_is_read_back():
    arrays = {"text": np.array(["a b", 'c"'], dtype=object), "answer_start": np.array([5, 6])}
    assert parse_literal(repr(arrays)) == {"text": ["a b", 'c"'], "answer_start": [5, 6]}


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "[1", "{'a'}", "{'a': 1", "{1: 2}", "[1 2]", "[1] [2]", "[1]]", "'a' 'b'", "b'a'", "f'{1}'", "1 + 1",
        "--1", "open('f')", "__import__('os')", "[].append", "array", "array()", "array([1], 2)", "array([1], key=2)",
        "array([1], dtype=[1])", "[x for x in [1]]", "lambda: 0", "x", "np.load('f')", "{**{}}", "[*[]]", "1if 1else 2",
        "'\\N{no such name}'", "'\\x'", "[" * 17 + "]" * 17, "[" * 1_000_000, "-" * 1_000_000, "array(" * 100_000,
        "[" + "1," * 600_000 + "]", "9" * 5000,
    ],
)  # fmt: skip
def test_all_else_is_refused(text):
    with pytest.raises(ValueError, match=r"^."):
        parse_literal(text)


FORMS = {
    "lists": lambda texts, starts: repr({"text": texts, "answer_start": starts}),
    "listed": lambda texts, starts: repr([{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]),
    "arrays": lambda texts, starts: repr(
        {"text": np.array(texts, dtype=object), "answer_start": np.array(starts, dtype=np.int32)}
    ),
    "text of numbers": lambda texts, starts: repr({"text": tuple(texts), "answer_start": [str(s) for s in starts]}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["f.csv", "f.tsv", "f.jsonl", "f.json", "f.parquet"])
def test_cells_hold_answers_as_python_writes_them(tmp_path, name, form):
    cells = [FORMS[form]([text for text, _ in answers], [start for _, start in answers]) for *_, answers in ROWS]
    write(tmp_path / name, flat(cells))
    passages, problems = read(tmp_path / name)
    assert problems == []
    found = {question.id: question.answers for passage in passages for question in passage.questions}
    assert {key: [(one.text, one.answer_start) for one in answers] for key, answers in found.items()} == {
        row[0]: row[3] for row in ROWS
    }


def test_cells_of_two_columns_hold_lists_as_python_writes_them(tmp_path):
    texts, starts = (
        ["['Zoë 🦉']", "array(['Ann', 'Bob'], dtype=object)", "[]", '["Bob"]'],
        ["[0]", "array([10, 21])", "[]", "[21]"],
    )
    write(tmp_path / "f.csv", flat(texts, starts))
    passages, problems = read(tmp_path / "f.csv")
    assert problems == []
    found = {question.id: question.answers for passage in passages for question in passage.questions}
    assert {key: [(one.text, one.answer_start) for one in answers] for key, answers in found.items()} == {
        row[0]: row[3] for row in ROWS
    }


def test_code_in_a_cell_is_a_bad_row(tmp_path):
    write(tmp_path / "f.csv", flat(["[__import__('os').abort()]", "{'text': open('f')}", "", ""]))
    _, problems = read(tmp_path / "f.csv")
    assert [problem.record for problem in problems] == ["f.csv row 0", "f.csv row 1"]
