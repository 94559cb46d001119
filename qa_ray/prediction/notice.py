"""Ray's notice that an actor's restart may fail, which is left out: here it does not fail.

What the actors of the pool are made of is held by the driver for as long as the job runs, and lost with it only.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

_NOTICE = "has constructor arguments in the object store and max_restarts > 0"


@contextlib.contextmanager
def without_notice() -> Iterator[None]:
    """Let the notice vanish from this process's standard error, to which Ray's core writes it as an error.

    Python's own output goes past the filter, so that a terminal stays one; the filter outlives a crash.
    """
    own, python = os.dup(2), sys.stderr
    command = ["grep", "--line-buffered", "--invert-match", "--fixed-strings", _NOTICE]
    reading, writing = os.pipe()
    # In a session of its own Ctrl-C does not reach it.
    # It ends by itself, when nobody writes to it any more.
    subprocess.Popen(command, stdin=reading, stdout=own, start_new_session=True)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)
    # A notebook's stream is none of the process's own.
    if _writes_to_descriptor(python):
        sys.stderr = os.fdopen(own, "w", buffering=1, encoding=python.encoding, errors=python.errors, closefd=False)
    try:
        yield
    finally:
        sys.stderr = python
        os.dup2(own, 2)
        os.close(own)


def _writes_to_descriptor(stream: object) -> bool:
    try:
        return bool(stream.fileno() == 2)  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return False
