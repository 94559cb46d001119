"""A question that is read and tokenised, and waits for the model: what a service collects to answer together."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from qa_ray.answers.request import Request
from qa_ray.data.collate import Collator
from qa_ray.schema import Passage


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One question with its contexts, for the answerer that made it."""

    passages: list[Passage]
    """The question with each of its contexts."""
    num_contexts: int | None
    """None where it is asked of a text, not of a list of texts."""
    request: Request
    table: pa.Table
    """The tokens, schema `TOKENIZED`."""
    collator: Collator
    """Its windows."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all windows, special ones included."""
        return int(self.collator.windows.length.sum())

    @property
    def num_windows(self) -> int:
        """Windows of all contexts."""
        return len(self.collator.windows)

    def window_spans(self) -> list[tuple[int, int, int]]:
        """Where windows were cut: of each the place of its context, and the characters [begin, end) that it holds."""
        windows = self.collator.windows
        filled = np.flatnonzero(windows.last > windows.first)
        question, first, last = windows.question[filled], windows.first[filled], windows.last[filled] - 1
        begins, ends = self.collator.corpus.characters(question, first.astype(np.int32), last.astype(np.int32))
        return list(zip(question.tolist(), begins.tolist(), ends.tolist(), strict=True))
