"""The rows that somebody should look at, by the reason why."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from qa_ray.config.fine_tuning import Config
from qa_ray.data.validation import shown
from qa_ray.data.windows import held_answers
from qa_ray.inspection.split import VALIDATION, InspectedSplit
from qa_ray.schema import Int64s

_NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Finding:
    """Questions of a split to be looked at for one reason; there may be none."""

    key: str
    heading: str
    meaning: str
    """What it means, and what to do."""
    questions: Int64s
    total: int
    """Questions of which it might be true."""
    note: Callable[[int], str]
    """What is to be said of a question, by its number in the corpus."""


def find(split: InspectedSplit, config: Config, train: InspectedSplit | None) -> list[Finding]:
    """All findings of a split; of validation questions also those on contexts of `train`."""
    found = [*_answers(split, config), *_repeated(split), *_odd(split)]
    if split.name == VALIDATION and train is not None:
        meaning = "The model has learnt from their contexts, so scores flatter: split by context."
        common = split.in_common(train)
        found.append(Finding("context_in_train", "on a context of train", meaning, common, len(split.corpus), _nothing))
    return found


def _answers(split: InspectedSplit, config: Config) -> Iterator[Finding]:
    corpus, windows = split.corpus, split.windows
    lengths, limit = corpus.answer_lengths, config.evaluate.max_answer_length
    answers = len(split.answer_lengths)

    def answer(question: int) -> str:
        return f"{lengths[question]} tokens: {_answer(split, question)}"

    if windows is not None:
        lost = np.flatnonzero((lengths > 0) & ~held_answers(corpus, windows))
        meaning = (
            "They can be neither learnt nor found: raise window.stride, or window.max_length where windows have no "
            "room for them."
        )
        yield Finding("whole_in_no_window", "answer whole in no window", meaning, lost, answers, answer)
        cut = windows.cut_questions
        kept = dict(zip(cut.tolist(), windows.question_length[np.searchsorted(windows.question, cut)], strict=True))
        yield Finding(
            "question_cut",
            "question cut",
            "Too long beside the context that windows share: lower window.stride, or raise window.max_length.",
            cut,
            len(corpus),
            lambda question: f"{corpus.question_lengths[question]} tokens, the first {kept[question]} are used",
        )
    heading, meaning = f"answer longer than {limit} tokens", "Never predicted: raise evaluate.max_answer_length."
    yield Finding("longer_than_max_answer_length", heading, meaning, np.flatnonzero(lengths > limit), answers, answer)


def _repeated(split: InspectedSplit) -> Iterator[Finding]:
    corpus, repeats = split.corpus, split.repeats
    first = dict(zip(repeats.again.tolist(), repeats.first.tolist(), strict=True))
    meaning = "The same words were asked of the same context before."
    yield Finding(
        "asked_again",
        "asked again",
        meaning,
        repeats.again,
        len(corpus),
        lambda question: f"first in {corpus.record(first[question])}",
    )
    yield Finding(
        "asked_again_with_another_answer",
        "asked again, with another answer",
        "Which of them is right? Drop the other, or give both answers to one question.",
        repeats.again[repeats.contradicts],
        len(corpus),
        lambda question: (
            f"{_answer(split, question)} here, {_answer(split, first[question])} in {corpus.record(first[question])}"
        ),
    )


def _odd(split: InspectedSplit) -> Iterator[Finding]:
    corpus = split.corpus
    empty = (corpus.question_lengths == 0) | (corpus.context_lengths == 0)
    meaning = "The tokenizer makes nothing of their characters: see whether it knows the language."
    heading, found = "question or context without tokens", np.flatnonzero(empty)
    yield Finding("no_tokens", heading, meaning, found, len(corpus), _nothing)
    whole = (corpus.context_lengths > 0) & (corpus.answer_lengths == corpus.context_lengths)
    meaning = "There is nothing to be found: see whether the context was cut."
    yield Finding(
        "answer_is_context",
        "answer that is its whole context",
        meaning,
        np.flatnonzero(whole),
        len(split.answer_lengths),
        lambda question: _answer(split, question),
    )


def _nothing(question: int) -> str:
    return ""


def _answer(split: InspectedSplit, question: int) -> str:
    references = split.corpus.references(question)
    return shown(references[0]) if references else _NO_ANSWER
