"""How a model family joins a question and its context into one input.

Which special tokens stand where, the type ids, the padded side, whether the context comes first, and where the CLS
token is: all of it is learnt from the tokenizer itself, by encoding a pair and reading the result.
"""

from dataclasses import dataclass
from typing import Self, TypeVar

from tokenizers import Encoding, Tokenizer

from qa_ray.errors import ModelError
from qa_ray.schema import Int64s

Count = TypeVar("Count", int, Int64s)
"""A number of tokens, or an array of such numbers."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Special tokens that stand at one place of the input, with their type ids."""

    ids: tuple[int, ...] = ()
    type_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """The layout prefix, first text, middle, second text, suffix; then padding on one side."""

    prefix: Segment
    middle: Segment
    suffix: Segment
    first_type_id: int
    second_type_id: int
    context_first: bool
    """Whether the context is the first text and the question the second, as in XLNet."""
    pad_left: bool
    pad_id: int
    pad_type_id: int
    uses_type_ids: bool
    """Whether the model takes token_type_ids."""
    cls_offset: int
    """Place of the no-answer label: from the window's first token if >= 0, from its end if negative."""

    @property
    def num_special(self) -> int:
        """Special tokens in every window."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def room(self, max_length: int, num_question_tokens: Count) -> Count:
        """Context tokens that fit into a window beside the question; may be negative."""
        return -num_question_tokens + max_length - self.num_special

    def context_begin(self, num_question_tokens: Count) -> Count:
        """Place of the first context token in an unpadded window."""
        if self.context_first:
            return num_question_tokens * 0 + len(self.prefix)
        return num_question_tokens + len(self.prefix) + len(self.middle)

    def cls_index(self, num_tokens: Count) -> Count:
        """Place of the no-answer label in an unpadded window of `num_tokens` tokens."""
        return num_tokens * (self.cls_offset < 0) + self.cls_offset

    @classmethod
    def learn(
        cls,
        tokenizer: Tokenizer,
        *,
        pad_left: bool,
        pad_id: int,
        pad_type_id: int,
        uses_type_ids: bool,
        no_answer_ids: tuple[int, ...],
    ) -> Self:
        """Read the layout off the encoding of a pair.

        Families whose CLS token stands last, such as XLNet, put the context first, as their authors do.

        Args:
            tokenizer: encodes without truncation and padding.
            pad_left: whether padding stands before the tokens.
            pad_id: id of the padding token.
            pad_type_id: type id of the padding token.
            uses_type_ids: whether the model takes token_type_ids.
            no_answer_ids: ids that may bear the no-answer label, best first: CLS, else BOS. Where the layout has none
                of them, the window's first token bears it.

        Raises:
            ModelError: the tokenizer makes no token of a plain word, or joins a pair in no fixed layout.
        """
        probe = tokenizer.encode("a", "a")
        sequence_ids = probe.sequence_ids
        if 0 not in sequence_ids or 1 not in sequence_ids:
            raise ModelError("the tokenizer gives no tokens for a pair of plain words: it cannot encode questions")
        first, after_first = _extent(sequence_ids, 0)
        second, after_second = _extent(sequence_ids, 1)
        if after_first > second:
            raise ModelError("the tokenizer mixes the tokens of question and context: no window can be cut from it")
        prefix, middle, suffix = (
            _segment(probe, begin, end)
            for begin, end in ((0, first), (after_first, second), (after_second, len(probe)))
        )
        cls_offset = _cls_offset(prefix.ids, suffix.ids, no_answer_ids)
        return cls(
            prefix=prefix,
            middle=middle,
            suffix=suffix,
            first_type_id=probe.type_ids[first],
            second_type_id=probe.type_ids[second],
            context_first=cls_offset < 0,
            pad_left=pad_left,
            pad_id=pad_id,
            pad_type_id=pad_type_id,
            uses_type_ids=uses_type_ids,
            cls_offset=cls_offset,
        )


def _extent(sequence_ids: list[int | None], sequence: int) -> tuple[int, int]:
    places = [place for place, owner in enumerate(sequence_ids) if owner == sequence]
    return places[0], places[-1] + 1


def _segment(probe: Encoding, begin: int, end: int) -> Segment:
    return Segment(tuple(probe.ids[begin:end]), tuple(probe.type_ids[begin:end]))


def _cls_offset(prefix: tuple[int, ...], suffix: tuple[int, ...], no_answer_ids: tuple[int, ...]) -> int:
    for token_id in no_answer_ids:
        if token_id in prefix:
            return prefix.index(token_id)
        if token_id in suffix:
            return suffix.index(token_id) - len(suffix)
    return 0
