"""What Ray says of the pool of actors, and does not help.

That an actor's restart may fail: what the actors are made of is held by the driver for as long as the job runs, and
lost with it only. And that there are fewer parts than actors: some questions are few.
"""

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator

_FEW_INPUTS = "The minimum number of concurrent actors"
_NOTICE = "has constructor arguments in the object store and max_restarts > 0"


@contextlib.contextmanager
def without_notice() -> Iterator[None]:
    """Let the notices vanish: the first from this process's standard error, to which Ray's core writes it as an error.

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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _FEW_INPUTS)
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
