"""The lines of the preflight, and how nodes are named in them."""

from qa_ray.doctor.verdict import by_value, failed, listed, passed, row, share, size, skipped, told, total, warning


def test_check_that_passed_is_one_line() -> None:
    assert row("code", passed("all agree")) == "passed   code           all agree"


def test_failure_says_below_what_to_do() -> None:
    lines = row("storage", failed("read-only", "name another folder")).splitlines()
    assert lines == ["failed   storage        read-only", " " * 24 + "-> name another folder"]


def test_long_lines_are_cut_between_words_and_stay_under_what_was_seen() -> None:
    path = "/shared/" + "x" * 60
    lines = row("storage", passed(f"written to {path} and to {path}")).splitlines()
    assert len(lines) > 1
    assert sum(line.count(path) for line in lines) == 2
    assert all(line.startswith(" " * 24) for line in lines[1:])


def test_total_counts_by_status() -> None:
    verdicts = [passed("a"), passed("b"), skipped("c"), warning("d", "do"), failed("e", "do")]
    assert total(verdicts) == "5 checks: 2 passed, 1 warning, 1 failed, 1 skipped"


def test_few_of_many_nodes_are_named() -> None:
    assert share(["a", "b"]) == "a, b"
    assert share(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_what_several_nodes_have_or_say_is_told_once_the_commonest_first() -> None:
    found = {"a": "late", "b": "no disk", "c": "no disk"}
    assert list(by_value(found).items()) == [("no disk", ["b", "c"]), ("late", ["a"])]
    assert told(found) == "b, c: no disk; a: late"
    assert listed(found) == "no disk on b, c; late on a"


def test_sizes_are_in_readable_units() -> None:
    assert [size(number) for number in (1_500, 2_400_000, 3.2e9)] == ["1.5 kB", "2.4 MB", "3.2 GB"]
