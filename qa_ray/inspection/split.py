"""One split of a run's data: its figures, and which of its texts came before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from qa_ray.config.fine_tuning import Config
from qa_ray.data.batching import padded_tokens, plan_epoch
from qa_ray.data.collate import Collator
from qa_ray.data.corpus import Corpus
from qa_ray.data.digests import shared_contexts
from qa_ray.data.validation import count_rows
from qa_ray.data.windows import Windows
from qa_ray.schema import Bools, Int64s, Problem, UInt64s
from qa_ray.scores.metrics import exact_match

TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True, slots=True)
class Repeats:
    """Questions that were asked of the same context before, in the same words; all arrays are [num_repeats]."""

    again: Int64s
    """The questions."""
    first: Int64s
    """Where each was asked first."""
    contradicts: Bools
    """Whether no answer to one would be right for the other; to have none is an answer here."""


@dataclass(frozen=True)
class InspectedSplit:
    """A split as training would have it."""

    name: str
    """train or validation."""
    location: str
    problems: tuple[Problem, ...]
    """Why rows cannot be used."""
    context_keys: UInt64s
    """Of each question's context, see `data.digests`."""
    corpus: Corpus
    collator: Collator | None
    """Makes its windows; None where the stride leaves no room for a question."""

    @property
    def windows(self) -> Windows | None:
        """Its windows."""
        return None if self.collator is None else self.collator.windows

    @property
    def rows_left_out(self) -> int:
        """Rows that cannot be used; one may have several problems."""
        return count_rows(self.problems)

    @cached_property
    def contexts(self) -> dict[str, int]:
        """Its contexts, numbered by their first question."""
        return _numbered(self.corpus.contexts())[0]

    @cached_property
    def context_lengths(self) -> Int64s:
        """Tokens of each different context, [num_contexts]."""
        numbers = _numbered(self.corpus.contexts())[1]
        lengths: Int64s = self.corpus.context_lengths[np.unique(numbers, return_index=True)[1]]
        return lengths

    @property
    def answer_lengths(self) -> Int64s:
        """Tokens of the first answer of those questions that have one, [num_answers]."""
        lengths = self.corpus.answer_lengths
        return lengths[lengths > 0]

    @cached_property
    def repeats(self) -> Repeats:
        """Questions that were asked before."""
        corpus = self.corpus
        contexts, texts = (_numbered(found)[1] for found in (corpus.contexts(), corpus.texts()))
        _, first, kind = np.unique(contexts * len(corpus) + texts, return_index=True, return_inverse=True)
        first = first[kind]
        again = np.flatnonzero(first != np.arange(len(corpus)))
        pairs = zip(again.tolist(), first[again].tolist(), strict=True)
        contradicts = np.fromiter((self._contradict(*pair) for pair in pairs), np.bool_, len(again))
        return Repeats(again, first[again], contradicts)

    def _contradict(self, one: int, other: int) -> bool:
        mine, others = (self.corpus.references(question) or [""] for question in (one, other))
        return not any(exact_match(text, others) for text in mine)

    def in_common(self, other: "InspectedSplit") -> Int64s:
        """Questions whose context stands in another split, too."""
        return shared_contexts(self.context_keys, other.context_keys)


def figures(split: InspectedSplit, config: Config) -> dict[str, Any]:
    """What there is of a split, as JSON takes it."""
    corpus, windows = split.corpus, split.windows
    return {
        "location": split.location,
        "questions": len(corpus),
        "several_answers": int((corpus.answer_counts > 1).sum()),
        "unanswerable": int((corpus.answer_counts == 0).sum()),
        "rows_left_out": split.rows_left_out,
        "contexts": len(split.contexts),
        "question_tokens": spread(corpus.question_lengths),
        "context_tokens": spread(split.context_lengths),
        "answer_tokens": spread(split.answer_lengths),
        "windows": None if windows is None else len(windows),
        **({} if windows is None or split.name != TRAIN else epoch_tokens(windows.length, config)),
    }


def epoch_tokens(lengths: Int64s, config: Config, max_length: int | None = None) -> dict[str, object]:
    """Tokens of an epoch on one device, and the share that is padding, for windows of these lengths."""
    batch = config.batch
    if batch.packing:
        return {"epoch_tokens": int(lengths.sum()), "padding": 0.0}
    total = padded_tokens(
        plan_epoch(lengths, batch, seed=config.train.seed, epoch=0),
        lengths,
        max_tokens=batch.token_limit,
        multiple=batch.pad_to_multiple_of,
        max_length=max_length or config.window.max_length,
    )
    return {"epoch_tokens": total, "padding": 1 - int(lengths.sum()) / total}


def spread(lengths: Int64s) -> Mapping[str, float | int]:
    """Median, 95th percentile and the most; zeros where there are none."""
    if not len(lengths):
        return {"median": 0, "p95": 0, "most": 0}
    return {
        "median": float(np.median(lengths)),
        "p95": int(np.percentile(lengths, 95, method="inverted_cdf")),
        "most": int(lengths.max()),
    }


def _numbered(texts: Iterable[str]) -> tuple[dict[str, int], Int64s]:
    """The different texts, numbered by their first place, and the number of each text."""
    numbers: dict[str, int] = {}
    found = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)
    return numbers, found
