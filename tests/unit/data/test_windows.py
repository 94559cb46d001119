"""Windows cover the context, fit the model and are labelled with the answer that they hold."""

import numpy as np
import pytest
from families import FAMILIES
from passages import corpus_of

from qa_ray.config.fine_tuning import WindowConfig
from qa_ray.data.collate import Collator
from qa_ray.data.corpus import Corpus
from qa_ray.data.windows import answer_notes, cut_note, held_answers, make_windows
from qa_ray.errors import ConfigError
from qa_ray.schema import Answer, Passage, Question

FAMILY = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)

WORDS = "the river flows through the old town and under the bridge "
FIVE = Passage(
    WORDS * 8,
    (
        Question("short", "who?", (Answer("the river", 0),), "row 1"),
        Question("long", "which river " * 30, (Answer("bridge", len(WORDS) * 7 + 51),), "row 2"),
        Question("none", "what?", (), "row 3"),
    ),
)


def made(given_passages, max_length, stride, family="bert"):
    tokenizer = FAMILIES[family].tokenizer()
    corpus, template = corpus_of(given_passages, tokenizer), FAMILIES[family].template()
    return corpus, template, make_windows(corpus, WindowConfig(max_length=max_length, stride=stride), template)


@pytest.mark.parametrize("family", ["bert", "xlnet", "gpt2"])
def test_overlong_question_is_cut_and_its_windows_cover_the_context(family):
    max_length, stride = 40, 9
    corpus, template, windows = made([FIVE], max_length, stride, family)
    assert windows.cut_questions.tolist() == [1]
    of_long = windows.question == 1
    assert (windows.length <= max_length).all()
    free = max_length - template.num_special - stride
    kept_tokens = free - max_length // 8
    assert set(windows.question_length[of_long]) == {kept_tokens}
    covered = [range(*pair) for pair in zip(windows.first[of_long], windows.last[of_long], strict=True)]
    assert set().union(*covered) == set(range(corpus.context_lengths[1]))
    shared = windows.last[of_long][:-1] - windows.first[of_long][1:]
    assert set(shared) == {stride}
    labelled = windows.start_position[of_long] != windows.cls_index[of_long]
    assert labelled.any()
    batch = Collator(corpus, windows, template, 8, max_length)(np.flatnonzero(of_long))
    asked = batch.inputs["input_ids"][0][batch.inputs["attention_mask"][0] == 1].tolist()
    kept = corpus.question_ids(1)[:kept_tokens].tolist()
    begin = len(template.prefix)
    if template.context_first:
        begin += int(windows.last[of_long][0]) + len(template.middle)
    assert asked[begin : begin + len(kept)] == kept


def test_long_question_is_whole_where_the_context_fits_beside_it():
    question = Question("1", "which river " * 9, (Answer("town", 8),), "row 1")
    corpus, template, windows = made([Passage("the old town", (question,))], 32, 20)
    assert template.room(32, corpus.question_lengths[0]) <= 20
    assert windows.cut_questions.tolist() == []
    assert (len(windows), windows.question_length[0]) == (1, corpus.question_lengths[0])
    assert windows.start_position[0] != windows.cls_index[0]


@pytest.mark.parametrize(("max_length", "least_step"), [(16, 2), (40, 5), (384, 48)])
def test_question_that_leaves_less_than_the_least_step_is_cut_to_leave_it(max_length, least_step):
    question = Question("1", "which river " * (max_length // 4), (), "row 1")
    corpus, template, _ = made([Passage(WORDS * 40, (question,))], 512, 0)
    room = template.room(max_length, corpus.question_lengths[0])
    assert room < corpus.context_lengths[0]
    whole, cut = (
        make_windows(corpus, WindowConfig(max_length=max_length, stride=room - step), template)
        for step in (least_step, least_step - 1)
    )
    assert whole.cut_questions.tolist() == []
    assert cut.cut_questions.tolist() == [0]
    assert set(cut.question_length) == {corpus.question_lengths[0] - 1}
    assert set(np.diff(whole.first)) == set(np.diff(cut.first)) == {least_step}


@pytest.mark.parametrize("stride", [0, 128, 300, 379])
def test_a_longer_question_never_makes_many_more_windows(stride):
    length = 384
    asked = tuple(Question(str(number), "a " * number, (), f"row {number}") for number in range(1, 380, 7))
    _, template, windows = made([Passage("b " * 20_000, asked)], length, stride)
    num_windows = np.bincount(windows.question)
    free = template.room(length, 0) - stride
    assert num_windows.max() <= -(-20_000 // min(length // 8, free // 2))
    assert (np.diff(num_windows) >= 0).all()


def test_note_tells_which_questions_are_cut_and_how_to_keep_them():
    corpus, _, windows = made([FIVE], 40, 9)
    note = cut_note(corpus, windows)
    kept = int(windows.question_length[windows.question == 1][0])
    assert f"1 question is too long beside the context that windows share, and cut: {corpus.record(1)}" in note
    assert f"({corpus.question_lengths[1]} tokens, the first {kept} are used); lower the stride" in note
    assert cut_note(*made([FIVE], 512, 0)[::2]) is None


@pytest.mark.parametrize(("family", "largest"), [("bert", 27), ("roberta", 26), ("gpt2", 30)])
def test_stride_that_leaves_no_room_is_refused_and_the_largest_is_named(family, largest):
    made([FIVE], 32, largest, family)
    with pytest.raises(ConfigError, match=rf"window\.stride={largest + 1} .* at most {largest}$"):
        made([FIVE], 32, largest + 1, family)


@FAMILY
@pytest.mark.parametrize(("max_length", "stride"), [(16, 0), (40, 9), (64, 40), (512, 128)])
def test_every_context_token_is_in_a_window_and_windows_fit(family, max_length, stride):
    corpus, template, windows = made([FIVE], max_length, stride, family.name)
    assert (windows.length <= max_length).all()
    assert (windows.length == template.num_special + windows.question_length + windows.last - windows.first).all()
    for number in range(len(corpus)):
        mine = np.flatnonzero(windows.question == number)
        assert windows.first[mine[0]] == 0
        assert windows.last[mine[-1]] == corpus.context_lengths[number]
        assert (windows.last[mine[:-1]] - windows.first[mine[1:]] == stride).all()


def test_window_that_cuts_the_answer_is_labelled_cls():
    question = Question("1", "who?", (Answer(WORDS.strip(), 0), Answer("the", 0)), "row 1")
    corpus, _, windows = made([Passage(WORDS * 3, (question,))], 16, 0)
    assert corpus.answer_last[0] > windows.last[0]
    assert (windows.start_position == 0).all()
    assert (windows.end_position == 0).all()


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_question_without_answer_is_labelled_cls_in_every_window(family):
    _, _, windows = made([FIVE], 24, 4, family)
    mine = windows.question == 2
    assert mine.sum() > 2
    assert (windows.start_position[mine] == windows.cls_index[mine]).all()
    assert (windows.end_position[mine] == windows.cls_index[mine]).all()
    assert (windows.cls_index[mine] == (0 if family == "bert" else windows.length[mine] - 1)).all()


def test_label_is_the_first_of_several_answers():
    answers = (Answer("town", WORDS.index("town")), Answer("river", 4))
    corpus, _, windows = made([Passage(WORDS, (Question("1", "where?", answers, "row 1"),))], 64, 8)
    begin = windows.start_position[0] - windows.context_begin[0]
    starts, _ = corpus.offsets(0)
    assert starts[begin] == WORDS.index("town")


def test_window_edge_inside_a_symbol_leaves_its_answer_to_another_window():
    question = Question("1", "what?", (Answer("🦄", 4),), "row 1")
    _, template, _ = made([FIVE], 512, 0, "gpt2")
    corpus, _, windows = made([Passage("aaaa🦄bbbbbbbbbbbb", (question,))], 12, 4, "gpt2")
    first, last = int(corpus.answer_first[0]), int(corpus.answer_last[0])
    assert last > first
    whole = (windows.first <= first) & (windows.last > last)
    assert whole.any()
    assert not whole.all()
    assert ((windows.end_position > windows.start_position) == whole).all()
    assert (windows.start_position[~whole] == template.cls_index(12)).all()


def test_empty_corpus_has_no_windows():
    template = FAMILIES["bert"].template()
    windows = make_windows(Corpus([]), WindowConfig(), template)
    assert len(windows) == 0
    assert windows.length.shape == windows.context_begin.shape == windows.cut_questions.shape == (0,)


@pytest.mark.parametrize(
    ("stride", "held"),
    # Windows hold 10 context tokens: 0-9, then 8-17 or 5-14 and 10-19.
    [(2, [True, False, True, False, False]), (5, [True, True, True, False, False])],
)
def test_answer_is_held_where_one_window_has_all_of_it(stride, held):
    words = ["town"] * 20
    starts = [(0, 10), (6, 5), (8, 2), (4, 11)]
    answers = [Answer(" ".join(words[first : first + count]), 5 * first) for first, count in starts]
    asked = [Question(str(number), "who?", (answer,), f"row {number}") for number, answer in enumerate(answers)]
    passage = Passage(" ".join(words), (*asked, Question("none", "who?", (), "row none")))
    corpus, _, windows = made([passage], 3 + len(("who", "?")) + 10, stride)
    assert corpus.context_lengths.tolist() == [20] * 5
    assert corpus.answer_lengths.tolist() == [10, 5, 2, 11, 0]
    assert held_answers(corpus, windows).tolist() == held
    lost_note, long_note = answer_notes(corpus, windows, 9)
    assert lost_note.startswith(f"whole in no window: {4 - sum(held)} of 4 answers (up to 11 tokens), ")
    assert "raise window.stride" in lost_note
    assert long_note.startswith("longer than evaluate.max_answer_length=9: 2 of 4 answers (up to 11 tokens), ")


def test_nothing_is_said_of_answers_that_are_held_and_short():
    corpus, _, windows = made([FIVE], 512, 0)
    assert answer_notes(corpus, windows, 2) == []
