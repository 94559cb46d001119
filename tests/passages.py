"""Passages for tests: random ones with every kind of symbol, and real ones from SQuAD."""

import unicodedata
from pathlib import Path

import pytest
from families import Family
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from qa_ray.config.data import DataConfig
from qa_ray.data.corpus import Corpus
from qa_ray.data.passages import read_split
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.schema import Answer, Passage, Question

SAMPLE = "package://qa_ray/data/sample"
SQUAD = Path(__file__).parents[1] / "../shared/data/squad"

AS_TEXT = {"split_special_tokens": True}
"""Lets a tokenizer take special tokens that stand in a text for text."""

_WORDS = ["The", " river", "bridge", " in", " 1357", "don't", "(ft)", ".", ",", "?", "-", "A", "x", "people", " the"]
_SPACES = [" ", "  ", "   ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2009"]
_SYMBOLS = [
    "é", "e\u0301", "a\u0323\u0302", "ß", "İ", "ﬁ", "½", "…", "“", "\u2013", "東京", "中", "한국", "ك", "Я",
    "😀", "👍🏽", "👩\u200d👩\u200d👧", "🇨🇿", "\u200b", "\u00ad", "\x07", "\x00", "\ufeff", "▁", "Ġ", "##", "''",
    "\u1100\u1161", "गुरु", "मुंबई", "كِتَابٌ", "น้ำ", "می\u200cخواهم", "🏴\U000e0067\U000e007f", "\u110b\u1173\u11ab",
]  # fmt: skip
_MARKS = ["[CLS]", "[SEP]", "<s>", "</s>", "<mask>", "<cls>", "<sep>", "[MASK]", "<|endoftext|>"]
_PLAIN = st.one_of(
    *map(st.sampled_from, (_WORDS, _WORDS, _SPACES, _SYMBOLS)),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
)
_PIECE = st.one_of(_PLAIN, _PLAIN, _PLAIN, st.sampled_from(_MARKS))


def texts(max_pieces: int, *, marks: bool = True) -> st.SearchStrategy[str]:
    """Text with at least one visible character, and with special tokens of the families among it."""
    pieces = st.lists(_PIECE if marks else _PLAIN, min_size=1, max_size=max_pieces)
    return pieces.map("".join).filter(str.strip)


@st.composite
def passages(draw: st.DrawFn, max_pieces: int = 60, *, marks: bool = True) -> Passage:
    """A passage with up to four questions and up to two answers to each, at any characters."""
    context = draw(texts(max_pieces, marks=marks))
    place = st.integers(0, len(context) - 1)
    questions = []
    for number in range(draw(st.integers(1, 4))):
        spans = draw(st.lists(st.tuples(place, st.integers(1, 20)), max_size=2))
        answers = (Answer(context[begin : begin + length], begin) for begin, length in spans)
        text = draw(texts(10, marks=marks))
        questions.append(
            Question(f"q{number}", text, tuple(answer for answer in answers if answer.text.strip()), f"row {number}")
        )
    return Passage(context, tuple(questions))


def characters_of(family: Family, text: str) -> list[tuple[int, int]]:
    """The characters of each token, one token after the other: what `token_characters` does for all at once."""
    told = family.untrimmed()(text, **AS_TEXT, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    covered = {place for start, end in told for place in range(start, end) if not text[place].isspace()}
    found = []
    for start, end in told:
        begin, stop = start, end
        if text[start:end].strip():
            begin, stop = end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())
            while stop < len(text) and stop not in covered and _is_of_word(text[stop]):
                stop += 1
            before = begin
            while before > 0 and before - 1 not in covered and _is_of_word(text[before - 1]):
                before -= 1
            # What adjoins the token before is that one's.
            begin = begin if before - 1 in covered else before
        found.append((begin, stop))
    return found


def holds_no_piece(family: Family, passage: Passage) -> bool:
    """Whether the family's own tokenizer takes a passage for text: unigram models have special tokens as pieces."""
    if not family.is_unigram:
        return True
    normalizer = family.tokenizer().backend_tokenizer.normalizer
    texts = [passage.context, *(question.text for question in passage.questions)]
    pieces = family.tokenizer().all_special_tokens
    return not any(piece in normalizer.normalize_str(text) for piece in pieces for text in texts)


def _is_of_word(character: str) -> bool:
    joins = character in "\u200c\u200d" or "\U0001f3fb" <= character <= "\U0001f3ff"
    return joins or "\U000e0020" <= character <= "\U000e007f" or unicodedata.category(character)[0] in "LMN"


def read_file(location: str) -> list[Passage]:
    """All passages of a file; skips the test where it is one of SQuAD's and not beside the repository."""
    if location.startswith(str(SQUAD)) and not Path(location).exists():
        pytest.skip(f"needs {Path(location).name} of SQuAD in {SQUAD}")
    found, problems = read_split(DataConfig(), location)
    assert not problems
    return found


def corpus_of(passages: list[Passage], tokenizer: PreTrainedTokenizerFast, *, block: int | None = None) -> Corpus:
    """The passages in one block, or in several of `block` passages each."""
    backend, size = parse_tokenizer(tokenizer.backend_tokenizer.to_str()), block or len(passages) or 1
    parts = [passages[begin : begin + size] for begin in range(0, len(passages), size)]
    return Corpus([tokenize(part, [], backend) for part in parts or [[]]])
