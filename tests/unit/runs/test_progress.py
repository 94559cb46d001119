"""Progress in a log and on a terminal, which is a pseudo-terminal here."""

import logging
import os
import pty
import sys
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest

from qa_ray.runs.progress import Display, make_bar
from qa_ray.tracking.metrics import Progress

SAID = [
    "said by a worker",
    "logged by the driver",
    "step 20: exact_match 40.00, f1 50.00, loss 2.00",
    "step 40: exact_match 40.00, f1 50.00, loss 2.00",
]
SCORES = {"eval_exact_match": 40.0, "eval_f1": 50.0, "eval_loss": 2.0}


class Terminal:
    """The other end of a pseudo-terminal: what a person sees of what was written."""

    def __init__(self) -> None:
        self._end, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 100))
        self.stream: TextIO = os.fdopen(slave, "w")

    def raw(self) -> str:
        self.stream.flush()
        os.set_blocking(self._end, False)
        read = b""
        try:
            while part := os.read(self._end, 65_536):
                read += part
        except BlockingIOError:
            pass
        return read.decode()

    def lines(self, raw: str) -> list[str]:
        """The lines that stand there in the end, each overwritten from its beginning after a carriage return."""
        seen = []
        for line in raw.replace("\r\n", "\n").split("\n"):
            cells: list[str] = []
            for text in line.split("\r"):
                cells[: len(text)] = text
            seen.append("".join(cells).rstrip())
        return seen


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.stream.close()


def show_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show two epochs of 20 steps, each followed by an evaluation, with two messages meanwhile."""
    # As the command line sets it up.
    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler(sys.stderr)])
    with Display() as display:
        for step in range(1, 41):
            display.show(Progress("train", step, 40, step, {"train_loss": 1.0}))
            if step == 7:
                display.write("said by a worker")
                logging.getLogger("qa_ray").warning("logged by the driver")
            if step % 20 == 0:
                for done in range(1, 6):
                    display.show(Progress("evaluate", done, 5, step))
                display.show(Progress("evaluate", 1, 1, step, SCORES))


@pytest.mark.parametrize("total", [7, 10, 250, 1.0], ids=str)
def test_log_has_a_line_for_every_ten_percent_and_not_more(total: float, capsys: pytest.CaptureFixture[str]) -> None:
    bar = make_bar("{percentage:.0f}%", total=total)
    for number in range(1, 251):
        bar.update(total * number / 250 - bar.n)
    bar.close()
    assert capsys.readouterr().err.splitlines() == [f"{share}%" for share in range(0, 101, 10)]


def test_log_of_a_run_that_goes_on_begins_where_it_stood(capsys: pytest.CaptureFixture[str]) -> None:
    bar = make_bar("{n_fmt}", total=40, initial=17)
    for _ in range(17, 40):
        bar.update()
    bar.close()
    assert capsys.readouterr().err.split() == ["17", "20", "24", "28", "32", "36", "40"]


def test_log_of_a_run_has_its_tenths_evaluations_and_messages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show_run(monkeypatch)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("train:")] == SAID
    assert [line.split()[2] for line in lines if line.startswith("train:")] == [
        f"{n}/40" for n in (1, *range(4, 41, 4))
    ]


def test_terminal_has_one_line_that_is_rewritten(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    show_run(monkeypatch)
    raw = terminal.raw()
    *lines, bar, after = terminal.lines(raw)
    assert lines == SAID
    assert bar.startswith("train: 100%")
    assert "40/40" in bar
    assert after == ""
    assert "evaluate:" in raw
    assert "\x1b[A" not in raw, "a bar stood on a second line"
