"""Windows of a corpus: for a (max_length, stride), which context tokens each model input holds, and its labels.

A window is three integers: its question, and its first and last context token. They are exactly those that the
tokenizer's own truncation with stride and overflow gives (a property test holds them to it), for milliseconds of numpy.
"""

from dataclasses import dataclass

import numpy as np

from qa_ray.config.fine_tuning import WindowConfig
from qa_ray.data.corpus import Corpus
from qa_ray.data.template import Template
from qa_ray.errors import ConfigError
from qa_ray.schema import Bools, Int64s

_STEPS_PER_WINDOW = 8
"""So many steps make at least a window's length, unless the stride asks for less: else the question is cut."""
_SHOWN_CUTS = 5


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of a corpus in question order; every array is [num_windows] except `cut_questions`."""

    question: Int64s
    """Number of the question in the corpus."""
    first: Int64s
    """First context token."""
    last: Int64s
    """End of the context tokens, exclusive."""
    question_length: Int64s
    """Question tokens in the window: all of them, but for `cut_questions`."""
    context_begin: Int64s
    """Place of the first context token in the unpadded window."""
    length: Int64s
    """Tokens of the unpadded window, special tokens included."""
    cls_index: Int64s
    """Place of the no-answer label in the unpadded window."""
    start_position: Int64s
    """Label: place of the answer's first token in the unpadded window, or `cls_index` if it holds no whole answer."""
    end_position: Int64s
    """Label: place of the answer's last token, inclusive, or `cls_index`."""
    cut_questions: Int64s
    """Questions too long for a window with this stride, whose end was cut off, [num_cut_questions]."""

    def __len__(self) -> int:
        return len(self.question)


def make_windows(corpus: Corpus, config: WindowConfig, template: Template) -> Windows:
    """Cut every context of `corpus` into windows and label them with the first answer.

    A question that leaves the context hardly more room than the stride would make a window of every few tokens; the
    tokenizer itself refuses it where there is no more room. Such a question is cut, so that a window begins at least
    an eighth of its length behind the one before, or half of what the stride leaves if that is less.

    Raises:
        ConfigError: the stride leaves no room for any question.
    """
    lengths, cut = _question_lengths(corpus, config, template)
    room = template.room(config.max_length, lengths)
    # 1 where one window holds all, and the stride is wider than what the question leaves.
    step = np.maximum(room - config.stride, 1)
    overflow = np.maximum(corpus.context_lengths - room, 0)
    counts = 1 + -(-overflow // step)
    question = np.repeat(np.arange(len(corpus)), counts)
    first = (np.arange(len(question)) - np.repeat(np.cumsum(counts) - counts, counts)) * step[question]
    last = np.minimum(first + room[question], corpus.context_lengths[question])
    question_length = lengths[question]
    context_begin = template.context_begin(question_length)
    length = template.num_special + question_length + last - first
    cls_index = template.cls_index(length)
    start, end = corpus.answer_first[question], corpus.answer_last[question]
    inside = (start >= first) & (end < last)
    return Windows(
        question=question,
        first=first,
        last=last,
        question_length=question_length,
        context_begin=context_begin,
        length=length,
        cls_index=cls_index,
        start_position=np.where(inside, context_begin + start - first, cls_index),
        end_position=np.where(inside, context_begin + end - first, cls_index),
        cut_questions=np.flatnonzero(cut),
    )


def cut_note(corpus: Corpus, windows: Windows) -> str | None:
    """Which questions were cut, and by how much; None if none was."""
    cut = windows.cut_questions.tolist()
    if not cut:
        return None
    first = np.searchsorted(windows.question, cut[:_SHOWN_CUTS])
    listed = ", ".join(
        f"{corpus.record(question)} ({corpus.question_lengths[question]} tokens, the first {kept} are used)"
        for question, kept in zip(cut, windows.question_length[first], strict=False)
    )
    more = ", ..." if len(cut) > _SHOWN_CUTS else ""
    return (
        f"{len(cut)} question{'s are' if len(cut) > 1 else ' is'} too long beside the context that windows share, and "
        f"cut: {listed}{more}; lower the stride or raise the windows' length to keep them whole"
    )


def held_answers(corpus: Corpus, windows: Windows) -> Bools:
    """Whether some window holds each question's first answer whole; False where there is none, [num_questions]."""
    first, last = corpus.answer_first[windows.question], corpus.answer_last[windows.question]
    inside = (first >= 0) & (first >= windows.first) & (last < windows.last)
    held = np.zeros(len(corpus), np.bool_)
    held[windows.question[inside]] = True
    return held


def answer_notes(corpus: Corpus, windows: Windows, max_answer_length: int) -> list[str]:
    """How many answers can never be learnt or predicted with these windows and this `max_answer_length`, and why."""
    lengths = corpus.answer_lengths
    answered = lengths > 0
    lost, long = answered & ~held_answers(corpus, windows), lengths > max_answer_length

    def some(chosen: Bools) -> str:
        return f"{chosen.sum():,} of {answered.sum():,} answers (up to {lengths[chosen].max():,} tokens)"

    notes = []
    if lost.any():
        cure = "raise window.stride, or window.max_length where windows have no room for it"
        notes.append(f"whole in no window: {some(lost)}, which can be neither learnt nor found; {cure}")
    if long.any():
        limit = f"evaluate.max_answer_length={max_answer_length}"
        notes.append(f"longer than {limit}: {some(long)}, which are never predicted; raise it")
    return notes


def widest_stride(max_length: int, num_question_tokens: int, template: Template) -> int:
    """The widest stride that leaves a question of so many tokens whole beside any context; below 0 where none does."""
    step = max_length // _STEPS_PER_WINDOW
    return template.room(max_length, max(2, min(num_question_tokens + step, 2 * num_question_tokens - 1)))


def _question_lengths(corpus: Corpus, config: WindowConfig, template: Template) -> tuple[Int64s, Bools]:
    """Question tokens that each question's windows hold, and which questions were cut for it."""
    free = template.room(config.max_length, 0) - config.stride
    if free < 2:
        raise ConfigError(
            f"window.stride={config.stride} leaves no room for a question in window.max_length={config.max_length} "
            f"with {template.num_special} special tokens: lower the stride to at most {free + config.stride - 2}"
        )
    lengths = corpus.question_lengths
    most = free - min(config.max_length // _STEPS_PER_WINDOW, free // 2)
    overflows = lengths + corpus.context_lengths > template.room(config.max_length, 0)
    cut = overflows & (lengths > most)
    return np.where(cut, most, lengths), cut
