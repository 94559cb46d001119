"""A share of the contexts is held out with all their questions, the same one whatever their order."""

import numpy as np
import pytest
from families import FAMILIES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qa_ray.data.corpus import view
from qa_ray.data.digests import context_keys, held_out
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.errors import DataError
from qa_ray.schema import Passage, Question

SHARES = st.floats(0.001, 0.999)
KEYS = arrays(np.uint64, st.integers(2, 60), elements=st.integers(0, 30)).filter(lambda keys: len(set(keys)) > 1)


@given(keys=KEYS, share=SHARES, seed=st.integers(0, 99))
def test_no_context_is_on_both_sides_and_none_is_empty_in_any_order(keys, share, seed):
    chosen = held_out(keys, share)
    inside, outside = set(keys[chosen].tolist()), set(keys[~chosen].tolist())
    assert not inside & outside
    assert inside
    assert outside
    assert abs(len(inside) - share * len(inside | outside)) <= 1
    order = np.random.default_rng(seed).permutation(len(keys))
    np.testing.assert_array_equal(held_out(keys[order], share), chosen[order])


def test_one_context_cannot_be_shared():
    with pytest.raises(DataError, match="all 3 questions are about one context"):
        held_out(np.array([7, 7, 7], np.uint64), 0.5)


def test_a_key_is_of_the_words_of_a_context_and_of_nothing_else():
    def keys(*contexts):
        passages = [
            Passage(context, (Question(f"{number}a", "q", (), "r"), Question(f"{number}b", "other", (), "r")))
            for number, context in enumerate(contexts)
        ]
        tokenizer = parse_tokenizer(FAMILIES["bert"].tokenizer().backend_tokenizer.to_str())
        return context_keys(view(tokenize(passages, [], tokenizer))).tolist()

    first, second = keys("the river", "the bridge")[::2]
    assert keys("the river", "the bridge") == [first, first, second, second]
    assert first != second
    assert keys("the bridge", "the\n river ") == [second, second, first, first]
    # As it has always been: whoever goes on with a run, or begins one anew, has the same split.
    assert first == 16941894100418774485
