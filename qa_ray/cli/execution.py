"""How a command runs: messages go to standard error, what is to be shown to standard output, and errors are words."""

import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from qa_ray.errors import StoppedError, UserError
from qa_ray.logs import silence


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM came: what goes on ends as after Ctrl-C."""


def exit_code(action: Callable[[], None]) -> int:
    """Call `action`, and tell of an error that the user can mend in words instead of a traceback.

    Returns 0, 1 after such an error, or 130 after Ctrl-C and 143 after SIGTERM. Wrong arguments exit with 2.
    """
    try:
        action()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read this, such as head, has seen enough; Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except _TerminatedError:
        print("terminated", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def set_up() -> None:
    """Prepare this process for a job, and Ray's workers after it, before the libraries are imported."""
    _hide_scripts()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    silence()


def end_on_sigterm() -> None:
    """End with a word when SIGTERM comes. To be called once Ray has started, whose own answer is its core's stack."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _TerminatedError

    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def importing(module: str) -> Iterator[None]:
    """Import a module in a thread while the context lasts: Ray's start is mostly waiting for its processes.

    It must share no module with what the context imports, but for those that are there already.
    """
    thread = threading.Thread(target=importlib.import_module, args=(module,), name="qa_ray-import", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _hide_scripts() -> None:
    """Take the running script's folder off the import path, for this process and for Ray's workers after it.

    Whoever imports the library `evaluate` would find jobs/evaluate.py there.
    """
    folder = os.path.dirname(os.path.realpath(sys.argv[0]))
    if os.path.isfile(sys.argv[0]):
        sys.path[:] = [place for place in sys.path if os.path.realpath(place) != folder]
