"""The rules by language: values by hand, and a second implementation that goes character by character."""

import string
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_ray.config.policies import Language
from qa_ray.scores.metrics import exact_match, f1, squad_scores, squad_v2_scores
from qa_ray.scores.normalization import normalize

ARTICLES = {
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des",
}
WORDS = {
    "en": ["the", "An", "cat", "“cat”", "another", "—", "A."],
    "es": ["El", "las", "¿gato?", "unos", "Málaga", "¡los!", "lana"],
    "vi": ["của", "Những", "sông", "Hồng", "là", "cái-chiếc", "(sông)"],
    "de": ["Der", "die", "„Haus“", "Eines", "einerlei", "§", "dem,"],
    "ar": ["القاهرة", "قاهرة", "خالد", "،", "في", "«ال»", "مصر؟"],
    "hi": ["दिल्ली", "।", "का", "लाल", "किला", "की", "(1648)"],
    "zh": ["北京", "（北京）", "北", "《红楼梦》", "BBC", "2008年", "、", "东 京", "𠀀"],
}


def naive_words(text: str, language: str) -> list[str]:
    kept = ""
    for character in text.lower():
        if character in string.punctuation or unicodedata.category(character)[0] == "P":
            continue
        is_word = language == "zh" and 0x4E00 <= ord(character) <= 0x9FA5
        kept += f" {character} " if is_word else character
    if language == "ar":
        kept = kept.replace("\u0627\u0644", " ")
    return [word for word in kept.split() if word not in ARTICLES.get(language, "").split()]


def naive_f1(prediction: str, reference: str, language: str) -> float:
    one, other = Counter(naive_words(prediction, language)), Counter(naive_words(reference, language))
    common = sum(min(number, other[word]) for word, number in one.items())
    if not common:
        return 0.0
    precision, recall = common / sum(one.values()), common / sum(other.values())
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("squad", "The “Cat”, an $5", "“cat” 5"),
        ("en", "The “Cat”, an $5", "cat 5"),
        ("es", "¿Los gatos del Río?", "gatos del río"),
        ("vi", "Sông Hồng của Việt Nam", "sông hồng việt nam"),
        ("de", "Der „Dom“ zu den Lügen einer Stadt", "dom zu lügen stadt"),
        ("de", "Einerlei", "einerlei"),
        ("ar", "القاهرة، مصر", "قاهرة مصر"),
        ("ar", "خالد", "خ د"),
        ("hi", "लाल किला।", "लाल किला"),
        ("zh", "北京（BBC News）2008年", "北 京 bbc news2008 年"),
        ("zh", "the 北京", "the 北 京"),
        ("zh", "  ", ""),
    ],
)
def test_text_is_normalized_by_the_rule_of_its_language(language: str, text: str, expected: str) -> None:
    assert normalize(text, Language(language)) == expected


def test_every_language_of_the_rule_can_be_chosen_and_no_other() -> None:
    assert set(Language) == {"squad", *WORDS}
    with pytest.raises(ValueError, match="'th' is not a valid Language"):
        Language("th")


def test_missing_bracket_costs_little_where_each_character_is_a_word() -> None:
    assert f1("北京大学（北大", ["北京大学（北大）"]) == 0
    assert f1("北京大学（北大", ["北京大学（北大）"], Language.CHINESE) == 1
    # 4 of 6 predicted characters are among the 4 of the reference: precision 2/3, recall 1.
    assert f1("北京大学北大", ["北京大学"], Language.CHINESE) == pytest.approx(0.8)
    assert exact_match("《红楼梦》", ["红楼梦"], Language.CHINESE) == 1
    assert exact_match("《红楼梦》", ["红楼梦"]) == 0
    # der and des do not count: 1 of 2 words is right.
    assert f1("der Dom zu Köln", ["des Dom"], Language.GERMAN) == pytest.approx(0.5)


def test_scores_of_questions_are_summed_by_the_rule() -> None:
    predictions = {"a": "北京（大学", "b": "上海", "c": "梦"}
    references = {"a": ["北京大学"], "b": ["上海市", "海"], "c": ["梦"]}
    # a: exact; b: 2 of 3 characters, F1 0.8; c: exact.
    assert squad_scores(predictions, references, Language.CHINESE) == {
        "exact_match": pytest.approx(200 / 3),
        "f1": pytest.approx(100 * 2.8 / 3),
        "total": 3,
    }
    # SQuAD's definition sees one word in each text, and only c's are the same.
    assert squad_scores(predictions, references)["f1"] == pytest.approx(100 / 3)
    none = {"a": -1.0, "b": -1.0, "c": 1.0}
    found = squad_v2_scores(predictions, references | {"c": []}, none, 0.0, Language.CHINESE)
    assert found["HasAns_f1"] == pytest.approx(90)
    assert found["NoAns_exact"] == 100


def test_texts_of_which_no_word_is_left_have_no_f1() -> None:
    # The published script gives 0 wherever no word is shared, and equal texts the exact match.
    assert squad_scores({"q": "der"}, {"q": ["die"]}, Language.GERMAN) == {"exact_match": 100, "f1": 0, "total": 1}


@pytest.mark.parametrize("language", WORDS)
def test_scores_are_those_of_a_second_implementation(language: str) -> None:
    texts = st.lists(st.sampled_from(WORDS[language]), min_size=1, max_size=6).map(" ".join)
    joined = st.lists(st.sampled_from(WORDS[language]), min_size=1, max_size=6).map("".join)

    @settings(deadline=None, max_examples=60)
    @given(texts | joined, st.lists(texts | joined, min_size=1, max_size=3))
    def check(prediction: str, references: list[str]) -> None:
        rule = Language(language)
        assert normalize(prediction, rule).split() == naive_words(prediction, language)
        found = squad_scores({"q": prediction}, {"q": references}, rule)
        same = any(naive_words(prediction, language) == naive_words(text, language) for text in references)
        assert found["exact_match"] == 100 * same
        best = max(naive_f1(prediction, text, language) for text in references)
        assert found["f1"] == pytest.approx(100 * best)

    check()
