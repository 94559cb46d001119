"""The lines of the preflight, and how nodes are named in them."""

import io

from qa_ray.doctor.table import row, terminal, total
from qa_ray.doctor.verdict import by_value, failed, passed, share, size, skipped, told, warning


def test_check_that_passed_is_one_line() -> None:
    assert row("clocks", passed("all agree")) == "passed   clocks         all agree"


def test_failure_says_below_what_to_do() -> None:
    lines = row("storage", failed("read-only", "name another folder")).splitlines()
    assert lines == ["failed   storage        read-only", " " * 24 + "-> name another folder"]


def test_long_lines_are_cut_between_words_and_stay_under_what_was_seen() -> None:
    path = "/shared/" + "x" * 60
    lines = row("storage", passed(f"written to {path} and to {path}"), width=80).splitlines()
    assert len(lines) > 1
    assert sum(line.count(path) for line in lines) == 2
    assert all(line.startswith(" " * 24) for line in lines[1:])


def test_only_the_status_is_coloured() -> None:
    assert row("clocks", failed("off", "set them"), colour=True).startswith("\033[31mfailed  \033[0m clocks")


def test_file_gets_no_colours() -> None:
    assert terminal(io.StringIO()) == (False, 120)


def test_terminal_gets_colours_unless_they_are_unwanted(monkeypatch) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal(stream)[0]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal(stream)[0]


def test_total_counts_by_status() -> None:
    verdicts = [passed("a"), passed("b"), skipped("c"), warning("d", "do"), failed("e", "do")]
    assert total(verdicts) == "5 checks: 2 passed, 1 warning, 1 failed, 1 skipped"


def test_few_of_many_nodes_are_named() -> None:
    assert share(["a", "b"]) == "a, b"
    assert share(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_commonest_value_comes_first() -> None:
    assert list(by_value({"a": 1, "b": 2, "c": 2}).items()) == [(2, ["b", "c"]), (1, ["a"])]


def test_message_of_several_nodes_is_told_once() -> None:
    assert told({"a": "no disk", "b": "no disk", "c": "late"}) == "a, b: no disk; c: late"


def test_sizes_are_in_readable_units() -> None:
    assert [size(number) for number in (1_500, 2_400_000, 3.2e9)] == ["1.5 kB", "2.4 MB", "3.2 GB"]
