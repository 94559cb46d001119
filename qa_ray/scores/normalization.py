"""What of an answer's text counts when it is compared: the words that SQuAD's or MLQA's script leaves of it."""

import re
import string
import unicodedata

from qa_ray.config.policies import Language

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _words(*words: str) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(words)})\b")


_ENGLISH = _words("a", "an", "the")
_ARTICLES = {
    Language.SQUAD: _ENGLISH,
    Language.ENGLISH: _ENGLISH,
    Language.SPANISH: _words("un", "una", "unos", "unas", "el", "la", "los", "las"),
    Language.VIETNAMESE: _words("của", "là", "cái", "chiếc", "những"),
    Language.GERMAN: _words(
        *("ein", "eine", "einen", "einem", "eines", "einer"),
        *("der", "die", "das", "den", "dem", "des"),
    ),
    # Wherever it stands: the script does not look for the beginning of a word.
    Language.ARABIC: re.compile("ال"),
}
# Each character of the script's range is a word, others are parted by spaces.
_CHINESE_WORD = re.compile(r"[\u4e00-\u9fa5]|[^\s\u4e00-\u9fa5]+")


def normalize(text: str, language: Language = Language.SQUAD) -> str:
    """Lower case, without punctuation and the language's articles, words parted by single spaces.

    Punctuation is ASCII's by SQuAD's definition, and Unicode's (category P) as well by MLQA's (Lewis et al. 2020,
    arXiv:1910.07475, mlqa_evaluation_v1.py).
    """
    text = text.lower().translate(_NO_PUNCTUATION)
    if language is not Language.SQUAD:
        text = "".join(character for character in text if not unicodedata.category(character).startswith("P"))
    if language in _ARTICLES:
        text = _ARTICLES[language].sub(" ", text)
    return " ".join(_CHINESE_WORD.findall(text) if language is Language.CHINESE else text.split())
