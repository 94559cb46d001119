"""Ray's notice that an actor's restart may fail, which the command line leaves out: here it does not fail.

What the actors of the pool are made of is held by the driver for as long as the job runs, and lost with it only.
"""

import os
import subprocess
import sys

_NOTICE = "has constructor arguments in the object store and max_restarts > 0"


def leave_out_notice() -> None:
    """Let the notice vanish from this process's standard error, to which Ray's core writes it as an error.

    Python's own output goes past the filter, so that a terminal stays one; the filter outlives a crash.
    """
    own = os.dup(2)
    command = ["grep", "--line-buffered", "--invert-match", "--fixed-strings", _NOTICE]
    # In a session of its own Ctrl-C does not reach it.
    reading, writing = os.pipe()
    subprocess.Popen(command, stdin=reading, stdout=own, start_new_session=True)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)
    sys.stderr = os.fdopen(own, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
