"""Passages for tests: random ones with every kind of symbol, and real ones from SQuAD."""

from pathlib import Path

import pytest
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from qa_ray.config.fine_tuning import DataConfig
from qa_ray.data.corpus import Corpus
from qa_ray.data.passages import read_split
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.schema import Answer, Passage, Question

SAMPLE = "package://qa_ray/data/sample"
SQUAD = Path(__file__).parents[1] / "../shared/data/squad"

_WORDS = ["The", " river", "bridge", " in", " 1357", "don't", "(ft)", ".", ",", "?", "-", "A", "x", "people", " the"]
_SPACES = [" ", "  ", "   ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2009"]
_SYMBOLS = [
    "é", "e\u0301", "a\u0323\u0302", "ß", "İ", "ﬁ", "½", "…", "“", "\u2013", "東京", "中", "한국", "ك", "Я",
    "😀", "👍🏽", "👩\u200d👩\u200d👧", "🇨🇿", "\u200b", "\u00ad", "\x07", "\x00", "\ufeff", "▁", "Ġ", "##", "''",
    "\u1100\u1161",
]  # fmt: skip
_MARKS = ["[CLS]", "[SEP]", "<s>", "</s>", "<mask>", "<cls>", "<sep>", "[MASK]", "<|endoftext|>"]
_PIECE = st.one_of(
    *map(st.sampled_from, (_WORDS, _WORDS, _SPACES, _SYMBOLS, _MARKS)),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
)


def texts(max_pieces: int) -> st.SearchStrategy[str]:
    """Text with at least one visible character."""
    return st.lists(_PIECE, min_size=1, max_size=max_pieces).map("".join).filter(str.strip)


@st.composite
def passages(draw: st.DrawFn, max_pieces: int = 60) -> Passage:
    """A passage with up to four questions and up to two answers to each, at any characters."""
    context = draw(texts(max_pieces))
    place = st.integers(0, len(context) - 1)
    questions = []
    for number in range(draw(st.integers(1, 4))):
        spans = draw(st.lists(st.tuples(place, st.integers(1, 20)), max_size=2))
        answers = (Answer(context[begin : begin + length], begin) for begin, length in spans)
        text = draw(texts(10))
        questions.append(
            Question(f"q{number}", text, tuple(answer for answer in answers if answer.text.strip()), f"row {number}")
        )
    return Passage(context, tuple(questions))


def holds_mark(text: str) -> bool:
    """Whether a text holds a special token of some family."""
    return any(mark in text for mark in _MARKS)


def read_file(location: str) -> list[Passage]:
    """All passages of a file; skips the test where it is one of SQuAD's and not beside the repository."""
    if location.startswith(str(SQUAD)) and not Path(location).exists():
        pytest.skip(f"needs {Path(location).name} of SQuAD in {SQUAD}")
    found, problems = read_split(DataConfig(), location)
    assert not problems
    return found


def corpus_of(passages: list[Passage], tokenizer: PreTrainedTokenizerFast) -> Corpus:
    """The passages in one block."""
    return Corpus([tokenize(passages, [], parse_tokenizer(tokenizer.backend_tokenizer.to_str()))])
