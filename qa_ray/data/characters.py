"""Which characters belong to a word, and to the characters of its tokens.

A tokenizer tells of each token the characters that it stands for. Many say too little: a normaliser that drops or
composes characters leaves the marks of Hindi and Arabic, or the end of a decomposed Hangul syllable, to no token.
Some say too much: the space before a word. Here both become what a reader would mark as the token's characters.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import regex

from qa_ray.schema import Bools, Int32s, Int64s

_SPACES = np.array([chr(code).isspace() for code in range(0x3002)])
# Zero-width joiner and non-joiner, skin tones, and the tags of flags: they are of category C and S, and parts of words
# and emoji all the same.
_JOINING = {0x200C, 0x200D, *range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080)}
# Unicode's default word boundaries (Annex 29): none before a mark or a joiner, one between any two Chinese characters.
_BOUNDARY = regex.compile(r"(?w)\b")


def whole_words(context: str, start: int, end: int) -> tuple[int, int]:
    """Widen the characters [start, end) of a context to the words in which they begin and end.

    Words end at Unicode's word boundaries and at punctuation: no mark or joiner is parted from its letter, and the
    scripts that put no space between words, such as Chinese and Thai, are widened by nothing else.
    """
    while _within_word(context, start):
        start -= 1
    while _within_word(context, end):
        end += 1
    return start, end


def _within_word(context: str, place: int) -> bool:
    sides = context[place - 1 : place + 1] if place else ""
    return len(sides) == 2 and not any(map(_parts_words, sides)) and not _BOUNDARY.match(context, place)


def token_characters(texts: Sequence[str], bounds: Int32s, starts: Int32s, ends: Int32s) -> tuple[Int32s, Int32s]:
    """The characters [start, end) of each token, from those that a tokenizer tells which trims no spaces.

    Space at either end is left out. Characters of a word that no token covers go with the token that they adjoin, the
    one before them rather than the one behind. So tokens in a row stand for all that is there, with its marks. A token
    of nothing but space stays as it is.

    Args:
        texts: each text.
        bounds: the tokens of text i are bounds[i] : bounds[i + 1].
        starts: first character of each token, counted in its text.
        ends: place after each token's last character.
    """
    # Texts are looked at in one row, each with a character behind it that is neither space nor part of a word.
    codes = np.frombuffer("".join(f"{text}\0" for text in texts).encode("utf-32-le"), np.uint32)
    closing = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64) - 1
    base = np.repeat(np.concatenate([[0], closing[:-1] + 1]), np.diff(bounds)) if len(texts) else starts
    first, last = starts + base, ends + base
    space = _SPACES[np.minimum(codes, len(_SPACES) - 1)]
    size = len(codes) + 1
    covered = np.cumsum(np.bincount(first, minlength=size) - np.bincount(last, minlength=size))[:-1] > 0
    covered &= ~space
    loose = ~covered & ~space
    loose[closing] = False
    begin, end = _next(~space)[first], _previous(~space)[last - 1] + 1
    solid = begin < last  # neither empty nor blank
    first, last = np.where(solid, begin, first), np.where(solid, end, last)
    if loose.any():
        loose[loose] = [_is_of_word(code) for code in codes[loose].tolist()]
        before = _previous(~loose)[first - 1]
        first = np.where(solid & (first > 0) & ~covered[before], before + 1, first)
        last = np.where(solid, _next(~loose)[last], last)
    return (first - base).astype(np.int32), (last - base).astype(np.int32)


def _next(wanted: Bools) -> Int64s:
    """The first wanted place from each place on; one beyond the end where there is none."""
    places = np.where(wanted, np.arange(len(wanted)), len(wanted))
    found: Int64s = np.minimum.accumulate(places[::-1])[::-1]
    return found


def _previous(wanted: Bools) -> Int64s:
    """The last wanted place up to each place; -1 where there is none."""
    found: Int64s = np.maximum.accumulate(np.where(wanted, np.arange(len(wanted)), -1))
    return found


def _parts_words(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "P" or (category == "Cf" and ord(character) not in _JOINING)


@cache
def _is_of_word(code: int) -> bool:
    return code in _JOINING or unicodedata.category(chr(code))[0] in "LMN"
