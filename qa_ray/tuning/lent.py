"""Variables that a sweep lends to its trials, which stand on its own node: from memory to memory, past Ray's store.

What Ray stores may be spilled to a disk, and is read by whatever else runs on the cluster.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def lend(variables: Mapping[str, str]) -> Iterator[str]:
    """Let this user's processes on this node read variables while the context lasts; yields the place for `borrow`.

    They are in this process's memory alone, and gone with it.
    """
    with os.fdopen(os.memfd_create("qa_ray"), "w", encoding="utf-8") as file:
        json.dump(dict(variables), file)
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def borrow(place: str) -> None:
    """Take the variables into this process's environment; where they cannot be read, the node's own stay."""
    try:
        os.environ.update(json.loads(Path(place).read_text("utf-8")))
    except OSError as error:
        logger.warning(
            "the sweep's own MLFLOW_ and AWS_ variables cannot be read here (%s): the node's count", error.strerror
        )
