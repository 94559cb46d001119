"""Gold spans of every script come back from tokens as they were, whatever a kind of tokenizer drops, joins or trims."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_level
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from qa_ray.data.corpus import Corpus
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.schema import Answer, Passage, Question
from qa_ray.scores.metrics import squad_scores

TEXTS = {
    "Latin": "Dvořák café naïve façade Łódź Ångström Việt Tiếng",
    "Devanagari": "गुरु मुंबई नमस्ते दुनिया क्षत्रिय",
    "Bengali": "বাংলা ভাষা শ্রী",
    "Tamil": "தமிழ் மொழி கோயில்",
    "Burmese": "မြန်မာ က္ကာ",
    "Arabic": "كِتَابٌ عَرَبِيٌّ جَدِيدٌ القاهرة",
    "Persian": "می\u200cخواهم بروم خانه",
    "Hebrew": "שָׁלוֹם עוֹלָם",
    "Hangul": "서울은 대한민국의 수도이다",
    "Thai": "ภาษาไทย น้ำท่วม กรุงเทพ",
    "Chinese and Japanese": "東京は 日本の 首都 が ガ",
    "emoji": "👍🏽 👩\u200d👩\u200d👧 🇨🇿 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f 1\ufe0f\u20e3",
    "compatibility": "ﬁne ½ ２０ ①",
}
FORMS = ("NFC", "NFD", "NFKC")
FRAME = "Old river {} (in Prague), don't."


def alphabet(normalizer):
    """Every character that the texts hold once they are normalised."""
    forms = (unicodedata.normalize(form, FRAME + text) for form in FORMS for text in TEXTS.values())
    return sorted({character for text in forms for character in normalizer.normalize_str(text)} - {" "})


def word_piece(normalizer):
    tokens = [prefix + character for character in alphabet(normalizer) for prefix in ("", "##")]
    vocabulary = {token: place for place, token in enumerate(["[UNK]", *tokens])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    return tokenizer


def unigram(normalizer):
    tokens = ["▁", *alphabet(normalizer)]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *((token, -1.0) for token in tokens)], 0))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.Metaspace(prepend_scheme="always")
    return tokenizer


def bytes_after(normalizer, *splits, add_prefix_space=False, trim_offsets=True):
    tokenizer = byte_level([])
    tokenizer.normalizer = normalizer
    level = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, level])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=trim_offsets)])
    return tokenizer


def stripping():
    return normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])


KINDS = {
    "uncased WordPiece": lambda: word_piece(normalizers.BertNormalizer(lowercase=True)),
    "cased WordPiece": lambda: word_piece(normalizers.BertNormalizer(lowercase=False)),
    "unigram NFC": lambda: unigram(normalizers.NFC()),
    "unigram NFD": lambda: unigram(normalizers.NFD()),
    "unigram NFKC": lambda: unigram(normalizers.NFKC()),
    "unigram without accents": lambda: unigram(stripping()),
    "bytes": lambda: bytes_after(normalizers.NFC()),
    "bytes untrimmed": lambda: bytes_after(normalizers.NFD(), add_prefix_space=True, trim_offsets=False),
    "bytes after words": lambda: bytes_after(
        normalizers.NFC(), pre_tokenizers.BertPreTokenizer(), add_prefix_space=True
    ),
    "bytes after punctuation": lambda: bytes_after(
        normalizers.NFC(), pre_tokenizers.Punctuation(), add_prefix_space=True
    ),
}
KIND = pytest.mark.parametrize("kind", KINDS)
_DEFINITIONS: dict[str, str] = {}


def backend(kind):
    if kind not in _DEFINITIONS:
        _DEFINITIONS[kind] = KINDS[kind]().to_str()
    return parse_tokenizer(_DEFINITIONS[kind])


def label_text(context, gold, begin, tokenizer):
    """What the context holds between the first and the last token of a gold answer."""
    table = tokenize([Passage(context, (Question("q", "who?", (Answer(gold, begin),), "row"),))], [], tokenizer)
    corpus = Corpus([table])
    starts, ends = corpus.offsets(0)
    return context[starts[corpus.answer_first[0]] : ends[corpus.answer_last[0]]]


@st.composite
def golds(draw):
    """A context of one script, and one to three of its words in a row."""
    name = draw(st.sampled_from(sorted(TEXTS)))
    words = draw(st.lists(st.sampled_from(TEXTS[name].split()), min_size=1, max_size=6))
    context = unicodedata.normalize(draw(st.sampled_from(FORMS)), FRAME.format(" ".join(words)))
    places = [place for place in range(len(context)) if place == 0 or context[place - 1] == " "]
    first = draw(st.integers(0, len(places) - 3))
    last = draw(st.integers(first, min(first + 2, len(places) - 3)))
    return context[places[first] : places[last + 1] - 1], places[first], context


@KIND
@settings(max_examples=60)
@given(found=golds())
def test_gold_spans_of_every_script_score_100(kind, found):
    gold, begin, context = found
    predicted = label_text(context, gold, begin, backend(kind))
    assert predicted == gold
    assert squad_scores({"q": predicted}, {"q": [gold]}) == {"exact_match": 100.0, "f1": 100.0, "total": 1}


@pytest.mark.parametrize(
    ("kind", "context", "gold"),
    [
        ("uncased WordPiece", "यह गुरु है", "गुरु"),
        ("uncased WordPiece", "a cafe\u0301 there", "cafe\u0301"),
        ("uncased WordPiece", "هذا كِتَابٌ جديد", "كِتَابٌ"),
        ("unigram NFC", unicodedata.normalize("NFD", "이 서울은 대"), unicodedata.normalize("NFD", "서울은")),
        ("bytes after words", "The river Vltava", "river"),
        ("bytes after punctuation", "The river (Vltava)", "Vltava"),
    ],
)
def test_marks_and_letters_that_no_token_tells_of_are_kept(kind, context, gold):
    assert label_text(context, gold, context.index(gold), backend(kind)) == gold


@KIND
@pytest.mark.parametrize("gold", ["river ", " river", " river  "])
def test_space_around_an_answer_is_no_part_of_it(kind, gold):
    context = "The  river  Prague"
    assert label_text(context, gold, context.index(gold), backend(kind)) == "river"


def test_characters_that_are_no_part_of_a_word_stay_outside():
    tokenizer = word_piece(normalizers.BertNormalizer(lowercase=True))
    context = "the \u200friver\u200f \ufeffPrague\u00ad in"
    for gold in ("river", "Prague"):
        assert label_text(context, gold, context.index(gold), parse_tokenizer(tokenizer.to_str())) == gold
