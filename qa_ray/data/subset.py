"""A random share of some questions: the same ones wherever these questions are, in whatever order."""

import hashlib
from collections.abc import Sequence

import numpy as np

from qa_ray.schema import Int64s


def random_share(ids: Sequence[str], share: float) -> Int64s:
    """Places of so large a share of the questions with these ids, at least one, ascending."""
    digests = [hashlib.sha256(one.encode()).digest() for one in ids]
    number = max(round(share * len(ids)), 1)
    chosen = sorted(range(len(ids)), key=digests.__getitem__)[:number]
    return np.sort(np.array(chosen, np.int64))
