"""Ray's notice is left out of standard error, and nothing else."""

import os
import pty
import subprocess
import sys

import pytest

# What Ray's core writes goes to the file descriptor.
SCRIPT = """
import os, sys
from qa_ray.prediction.notice import without_notice
with without_notice():
    print(f"from Python, terminal: {sys.stderr.isatty()}", file=sys.stderr)
    notice = "[E 12] Actor has constructor arguments in the object store and max_restarts > 0. If they go out of scope"
    os.write(2, f"{notice}\\nan error of Ray's core\\n".encode())
    if sys.argv[1:]: os.abort()
print("afterwards", file=sys.stderr)
os.write(2, b"to the descriptor itself\\n")
"""


@pytest.mark.parametrize("arguments", [[], ["crash"]], ids=["end", "crash"])
def test_notice_is_left_out_and_all_other_lines_arrive(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    expected = ["an error of Ray's core", "from Python, terminal: False"]
    expected += [] if arguments else ["afterwards", "to the descriptor itself"]
    assert sorted(done.stderr.splitlines()) == sorted(expected)


def test_a_terminal_stays_one() -> None:
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as screen:
        subprocess.run([sys.executable, "-c", SCRIPT], stderr=slave, check=True)
        os.close(slave)
        shown = b""
        while b"error of" not in shown:
            shown += screen.read(4096)
    assert b"terminal: True" in shown
