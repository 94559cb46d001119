"""A corpus shows what its tables hold, by question, without copying tokens."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from passages import passages

from qa_ray.data.corpus import Corpus
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.schema import TOKENIZED, Answer, Passage, Problem, Question

PASSAGES = [
    Passage(
        "The river flows through Prague.",
        (
            Question("1", "What flows?", (Answer("The river", 0), Answer("river", 4)), "f row 1"),
            Question("2", "Who swims?", (), "f row 2"),
        ),
    ),
    Passage("A passage that nobody asks about.", ()),
    Passage("About 1.3 million people.", (Question("3", "How many?", (Answer("1.3 million", 6),), "f row 3"),)),
    Passage(
        "東京は日本の首都です。",
        (
            Question("4", "首都?", (), "f row 4"),
            Question("5", "Which town?", (Answer("東京", 0),) * 3, "f row 5"),
        ),
    ),
]


def tokenizer():
    return parse_tokenizer(FAMILIES["bert"].tokenizer().backend_tokenizer.to_str())


def table(given_passages=PASSAGES, problems=()):
    return tokenize(given_passages, list(problems), tokenizer())


def contents(corpus):
    """Everything that a corpus tells of its questions, as plain lists."""
    columns = [
        corpus.question_lengths,
        corpus.context_lengths,
        corpus.answer_first,
        corpus.answer_last,
    ]
    return [
        (
            corpus.id(number),
            corpus.text(number),
            corpus.record(number),
            corpus.context(number),
            corpus.references(number),
            corpus.question_ids(number).tolist(),
            corpus.context_ids(number).tolist(),
            [side.tolist() for side in corpus.offsets(number)],
            [int(column[number]) for column in columns],
        )
        for number in range(len(corpus))
    ]


def expected(rows):
    """The same, read from the rows of tables one by one."""
    found = []
    for row in rows:
        for asked in row["questions"]:
            answers = asked["answers"]
            first, last = (answers[0]["first_token"], answers[0]["last_token"]) if answers else (-1, -1)
            found.append(
                (
                    asked["id"],
                    asked["text"],
                    asked["record"],
                    row["context"],
                    [answer["text"] for answer in answers],
                    asked["input_ids"],
                    row["input_ids"],
                    [row["offset_starts"], row["offset_ends"]],
                    [len(asked["input_ids"]), len(row["input_ids"]), first, last],
                )
            )
    return found


def test_questions_are_numbered_in_the_order_of_the_rows():
    corpus = Corpus([table()])
    assert [corpus.id(number) for number in range(len(corpus))] == ["1", "2", "3", "4", "5"]
    assert [corpus.references(number) for number in range(len(corpus))] == [
        ["The river", "river"],
        [],
        ["1.3 million"],
        [],
        ["東京"] * 3,
    ]
    assert corpus.context(2) == "About 1.3 million people."
    assert corpus.record(3) == "f row 4"
    assert contents(corpus) == expected(table().to_pylist())


@settings(max_examples=25)
@given(st.lists(passages(max_pieces=10), max_size=6), st.data())
def test_tables_cut_anywhere_hold_the_same_corpus(given_passages, data):
    whole = table(given_passages, [Problem("f", "line", "'x'", "is not JSON")])
    cuts = sorted(data.draw(st.lists(st.integers(0, whole.num_rows), max_size=3)))
    bounds = [0, *cuts, whole.num_rows]
    blocks = [whole.slice(begin, end - begin) for begin, end in pairwise(bounds)]
    assert contents(Corpus(blocks)) == contents(Corpus([whole])) == expected(whole.to_pylist())


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole.slice(2, 2),
        lambda whole: whole.slice(1).slice(1, 2),
        lambda whole: whole.take([3, 0, 0]),
        lambda whole: whole.filter(pa.array([False, True, False, True, True])),
        lambda whole: pa.concat_tables([whole.slice(2), whole.slice(0, 3), whole]),
        lambda whole: pa.table(pa.concat_tables([whole.slice(2), whole]).combine_chunks().slice(1)),
        lambda whole: _through_a_file(whole.slice(2, 2)),
        lambda whole: whole.slice(1, 1),
        lambda whole: whole.slice(2, 0),
        lambda whole: TOKENIZED.empty_table(),
    ],
    ids=["slice", "slice-of-slice", "take", "filter", "chunks", "combined", "ipc", "unasked", "no-row", "empty"],
)
def test_every_form_of_arrow_table_is_read_alike(change):
    changed = change(table())
    assert contents(Corpus([changed])) == expected(changed.to_pylist())
    assert contents(Corpus([table(), changed])) == expected(table().to_pylist() + changed.to_pylist())


def _through_a_file(part):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, part.schema) as writer:
        writer.write_table(part)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def test_tokens_and_offsets_are_views_of_the_arrow_buffers():
    whole = table()
    corpus = Corpus([whole.slice(0, 2), whole.slice(2)])

    def buffer(array):
        return np.frombuffer(array.buffers()[1], np.int32)

    ids, starts, ends, asked = (
        whole[name].chunk(0).values for name in ("input_ids", "offset_starts", "offset_ends", "questions")
    )
    for number in range(len(corpus)):
        assert np.shares_memory(corpus.context_ids(number), buffer(ids))
        assert np.shares_memory(corpus.offsets(number)[0], buffer(starts))
        assert np.shares_memory(corpus.offsets(number)[1], buffer(ends))
        assert np.shares_memory(corpus.question_ids(number), buffer(asked.field("input_ids").values))


def test_selection_keeps_questions_in_its_own_order():
    whole = table()
    everything = contents(Corpus([whole, whole.slice(2)]))
    chosen = np.array([7, 0, 4, 4])
    corpus = Corpus([whole, whole.slice(2)], chosen)
    assert len(corpus) == 4
    assert contents(corpus) == [everything[number] for number in chosen]
    assert len(Corpus([whole], np.array([], np.int64))) == 0


def test_corpus_knows_whether_some_question_has_no_answer():
    whole = table()
    assert Corpus([whole]).has_unanswerable
    assert not Corpus([whole], np.array([0, 2, 4])).has_unanswerable
    assert Corpus([whole], np.array([0, 3])).has_unanswerable


@pytest.mark.parametrize("tables", [[], [TOKENIZED.empty_table()], [table([])]], ids=["none", "empty", "no-question"])
def test_corpus_without_questions_is_empty(tables):
    corpus = Corpus(tables)
    assert len(corpus) == 0
    assert not corpus.has_unanswerable
    assert corpus.answer_first.shape == (0,)


def test_corpus_tells_texts_and_answers_of_all_questions():
    corpus = Corpus([tokenize(PASSAGES[:3], [], tokenizer()), tokenize(PASSAGES[3:], [], tokenizer())])
    assert corpus.texts() == ["What flows?", "Who swims?", "How many?", "首都?", "Which town?"]
    assert corpus.answer_counts.tolist() == [2, 0, 1, 0, 3]
    # The first answer is "The river"; "1.3 million" is 1 . 3 million; each of the two characters is a token.
    assert corpus.answer_lengths.tolist() == [2, 0, 4, 0, 2]


def test_characters_of_spans_in_any_order_are_those_of_their_questions():
    # A block for each passage, and questions that change from one to the other.
    corpus = Corpus([tokenize([passage], [], tokenizer()) for passage in PASSAGES], np.array([3, 0, 4, 2, 1]))
    random = np.random.default_rng(0)
    question = random.integers(0, len(corpus), 200)
    first, last = np.sort(random.random((2, 200)) * corpus.context_lengths[question], axis=0).astype(np.int32)
    begins, ends = corpus.characters(question, first, last)
    for row, number in enumerate(question.tolist()):
        starts_of, ends_of = corpus.offsets(number)
        assert (begins[row], ends[row]) == (starts_of[first[row]], ends_of[last[row]])
    nothing = np.empty(0, np.int32)
    assert [len(found) for found in corpus.characters(nothing.astype(np.int64), nothing, nothing)] == [0, 0]
