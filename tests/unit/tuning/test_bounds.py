"""The widest stride that the data allow is exactly the widest one that cuts no question."""

import pytest
from families import FAMILIES
from passages import corpus_of

from qa_ray.config.fine_tuning import Config, WindowConfig
from qa_ray.data.windows import make_windows
from qa_ray.errors import ConfigError
from qa_ray.model.loading import learn_template
from qa_ray.schema import Answer, Passage, Question
from qa_ray.tuning.bounds import Bounds
from qa_ray.tuning.space import apply

LONG = "the river flows through the old town and under the bridge " * 8
PASSAGES = [
    Passage(LONG, (Question("short", "who?", (Answer("the river", 0),), "1"),)),
    Passage(LONG, (Question("middle", "which river " * 5, (Answer("the river", 0),), "2"),)),
    # The longest question of all, whose context fits beside it.
    Passage("the town", (Question("whole", "which river " * 9, (Answer("the town", 0),), "3"),)),
]


@pytest.mark.parametrize("family", ["bert", "roberta", "xlnet"])
@pytest.mark.parametrize("max_length", [56, 64, 400])
def test_stride_at_the_bound_cuts_no_question_and_one_more_does(family: str, max_length: int) -> None:
    tokenizer = FAMILIES[family].tokenizer()
    corpus, template = corpus_of(PASSAGES, tokenizer), learn_template(tokenizer)
    bounds = Bounds(corpus.question_lengths, corpus.context_lengths, template)
    most = bounds.max_stride(max_length)
    assert most > 0
    for stride, fits in ((0, True), (most, True), (most + 1, False)):
        config = apply(Config(), {"window.max_length": max_length, "window.stride": stride})
        try:
            cut = len(make_windows(corpus, WindowConfig(max_length=max_length, stride=stride), template).cut_questions)
        except ConfigError:
            cut = 1
        assert (cut == 0) is fits
        if fits:
            bounds.check(config)
        else:
            with pytest.raises(ConfigError, match=rf"window\.stride={stride} leaves no room .*at most {most} can be"):
                bounds.check(config)


def test_bound_comes_from_the_longest_question_whose_context_is_cut() -> None:
    tokenizer = FAMILIES["bert"].tokenizer()
    corpus = corpus_of(PASSAGES, tokenizer)
    bounds = Bounds(corpus.question_lengths, corpus.context_lengths, learn_template(tokenizer))
    lengths = {corpus.id(question): int(corpus.question_lengths[question]) for question in range(3)}
    assert lengths["middle"] < lengths["whole"]
    assert bounds.longest_question(64) == lengths["middle"]
