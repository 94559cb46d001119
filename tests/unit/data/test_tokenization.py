"""Texts become token ids and offsets, each distinct text once, and answers the tokens that they touch."""

import pytest
from families import FAMILIES
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from passages import AS_TEXT, characters_of, holds_no_piece, passages
from tokenizers import Tokenizer, models, pre_tokenizers

from qa_ray.data.tokenization import answer_tokens, parse_tokenizer, tokenize
from qa_ray.schema import TOKENIZED, Answer, Passage, Problem, Question

FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


class CountingTokenizer:
    """Passes texts on to a tokenizer and keeps them."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.texts = []

    def encode_batch(self, texts, **options):
        self.texts.extend(texts)
        return self.tokenizer.encode_batch(texts, **options)


def backend(name):
    return parse_tokenizer(FAMILIES[name].tokenizer().backend_tokenizer.to_str())


def question(identifier, text, *answers):
    return Question(identifier, text, tuple(Answer(*answer) for answer in answers), f"row {identifier}")


def answers_of(row):
    return [(answer["first_token"], answer["last_token"]) for answer in row["answers"]]


def ids_of(family, text):
    return family.tokenizer()(text, **AS_TEXT, add_special_tokens=False)["input_ids"]


def without_space(answer):
    """Begin and length of an answer without the space around it."""
    return answer.answer_start + len(answer.text) - len(answer.text.lstrip()), len(answer.text.strip())


def spans(answers, offsets):
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    return [answer_tokens(Answer(*answer), starts, ends) for answer in answers]


@FAMILY
@settings(max_examples=25)
@given(data=st.data())
def test_ids_offsets_and_answers_are_those_of_the_tokenizer(family, data):
    passage = data.draw(passages(max_pieces=30, marks=not family.is_unigram))
    assume(holds_no_piece(family, passage))
    table = tokenize([passage], [], parse_tokenizer(family.tokenizer().backend_tokenizer.to_str()))
    assert table.schema == TOKENIZED
    row, rest = table.to_pylist()
    characters = characters_of(family, passage.context)
    assert row["context"] == passage.context
    assert row["input_ids"] == ids_of(family, passage.context)
    assert list(zip(row["offset_starts"], row["offset_ends"], strict=True)) == characters
    touched = {
        asked.id: [
            [place for place, (start, end) in enumerate(characters) if start < begin + length and end > begin]
            for begin, length in map(without_space, asked.answers)
        ]
        for asked in passage.questions
    }
    kept = [asked for asked in passage.questions if row["input_ids"] and all(touched[asked.id])]
    assert [stored["id"] for stored in row["questions"]] == [asked.id for asked in kept]
    for stored, asked in zip(row["questions"], kept, strict=True):
        assert (stored["text"], stored["record"]) == (asked.text, asked.record)
        assert stored["input_ids"] == ids_of(family, asked.text)
        assert [answer["text"] for answer in stored["answers"]] == [answer.text for answer in asked.answers]
        assert answers_of(stored) == [(places[0], places[-1]) for places in touched[asked.id]]
    left_out = {asked.record for asked in passage.questions} - {asked.record for asked in kept}
    assert {problem["record"] for problem in rest["problems"]} == left_out


def test_each_distinct_text_is_encoded_once():
    tokenizer = CountingTokenizer(backend("bert"))
    given_passages = [
        Passage("the river", (question("1", "who?"), question("2", "what?"))),
        Passage("the town", (question("3", "who?"),)),
        Passage("the river", (question("4", "what?"), question("5", "the town"))),
    ]
    table = tokenize(given_passages, [], tokenizer)
    assert sorted(tokenizer.texts) == ["the river", "the town", "the town", "what?", "who?"]
    stored = {asked["id"]: asked["input_ids"] for row in table.to_pylist() for asked in row["questions"]}
    assert stored["1"] == stored["3"] != stored["2"] == stored["4"]


def test_answers_are_the_tokens_that_they_touch():
    words = [(0, 3), (4, 9), (9, 10), (11, 14)]
    assert spans([("the", 0)], words) == [(0, 0)]
    assert spans([("iv", 5)], words) == [(1, 1)]
    assert spans([("r. an", 8)], words) == [(1, 3)]
    assert spans([(" river", 3)], words) == [(1, 1)]
    assert spans([("the ", 0)], words) == [(0, 0)]
    assert spans([("the river. and", 0), (".", 9)], words) == [(0, 3), (2, 2)]
    assert spans([], words) == []


def test_answer_between_tokens_touches_none():
    ((first, last),) = spans([("\x07", 3)], [(0, 3), (4, 9)])
    assert first > last
    ((first, last),) = spans([("x", 12)], [(0, 3), (4, 9)])
    assert first > last


def test_answer_covers_all_byte_tokens_of_its_symbols():
    assert spans([("😀", 2)], [(0, 1), (2, 3), (2, 3), (2, 3), (2, 3), (4, 5)]) == [(1, 4)]
    context = "It is 🦄 or 東京."
    table = tokenize([Passage(context, (question("1", "what?", ("🦄", 6)),))], [], backend("roberta"))
    row = table.to_pylist()[0]
    ((first, last),) = answers_of(row["questions"][0])
    assert last > first
    touched = {(row["offset_starts"][place], row["offset_ends"][place]) for place in range(first, last + 1)}
    assert max(end for _, end in touched) == 7
    others = [*range(first), *range(last + 1, len(row["input_ids"]))]
    assert not any(row["offset_starts"][place] < 7 and row["offset_ends"][place] > 6 for place in others)


def test_answer_without_tokens_becomes_a_problem_and_its_neighbours_stay():
    asked = (
        question("1", "who?", ("the", 0)),
        question("2", "what?", ("river", 6), ("\x07", 4)),
        question("3", "where?"),
    )
    table = tokenize([Passage("the \x07 river", asked)], [], backend("bert"))
    row, rest = table.to_pylist()
    assert [stored["id"] for stored in row["questions"]] == ["1", "3"]
    assert rest["problems"] == [
        {
            "record": "row 2",
            "field": "answers.text",
            "value": "'\\x07'",
            "message": "the tokenizer makes no token of it",
        }
    ]
    assert (rest["context"], rest["input_ids"], rest["questions"]) == ("", [], [])


def test_context_without_tokens_becomes_a_problem_of_each_question():
    asked = (question("1", "who?", ("\x07", 0)), question("2", "what?"))
    table = tokenize([Passage("\x07\x07", asked), Passage("a b", (question("3", "who?"),))], [], backend("bert"))
    empty, sound, rest = table.to_pylist()
    assert empty["questions"] == []
    assert [stored["id"] for stored in sound["questions"]] == ["3"]
    assert [(problem["record"], problem["field"], problem["value"]) for problem in rest["problems"]] == [
        ("row 1", "context", "'\\x07\\x07'"),
        ("row 2", "context", "'\\x07\\x07'"),
    ]


def test_problems_that_were_found_before_come_first():
    earlier = Problem("row 0", "question", "''", "is empty")
    table = tokenize([Passage("\x07", (question("1", "who?"),))], [earlier], backend("bert"))
    problems = table.to_pylist()[-1]["problems"]
    assert Problem(**problems[0]) == earlier
    assert [problem["record"] for problem in problems] == ["row 0", "row 1"]


def test_nothing_to_tokenise_is_one_row_without_problems():
    table = tokenize([], [], backend("bert"))
    assert table.schema == TOKENIZED
    assert table.to_pylist() == [
        {"context": "", "input_ids": [], "offset_starts": [], "offset_ends": [], "questions": [], "problems": []}
    ]


def test_passage_without_questions_keeps_its_row():
    table = tokenize([Passage("the river", ()), Passage("a town", (question("1", "who?"),))], [], backend("bert"))
    assert [len(row["questions"]) for row in table.to_pylist()] == [0, 1, 0]


def test_tokenizer_is_loaded_without_truncation_and_padding():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "p": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=4, pad_id=1, pad_token="p")
    loaded = parse_tokenizer(tokenizer.to_str())
    assert loaded.encode("a a a").ids == [0, 0, 0]
    assert loaded.encode("a").ids == [0]
    assert parse_tokenizer(tokenizer.to_str()) is loaded
