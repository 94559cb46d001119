import numpy as np
import pytest
import torch
from device_waits import waits
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import changed, made_passages, make_collator, tiny_config

from qa_ray.answers import inference
from qa_ray.answers.decode import Candidates
from qa_ray.answers.inference import Decoder, more_candidates, score_corpus
from qa_ray.answers.partition import ContextLogits
from qa_ray.model.compute import Logits
from qa_ray.model.loading import load_model
from qa_ray.model.token_limit import TokenLimit

MAX_ANSWER_LENGTH = 6


def collator_of(folder, **changes):
    """Windows that share tokens, several for each question."""
    config = changed(tiny_config(folder), window={"max_length": 48, "stride": 8}, **changes)
    return make_collator(config, made_passages(6, num_words=(30, 60)))


def random_logits(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    padding = batch.inputs["attention_mask"] == 0
    start, end = torch.randn(2, *padding.shape, generator=generator).masked_fill(padding, -torch.inf)
    return Logits(start, end)


@pytest.mark.parametrize("family", ["bert", "xlnet"], ids=["padded on the right", "padded on the left"])
def test_batch_is_decoded_with_one_copy_and_nothing_is_lost_in_it(saved, family):
    collator = collator_of(saved(family))
    windows = collator.windows
    group = np.argsort(windows.length)[::3]
    batch = collator(group)
    logits = random_logits(batch)
    decoder = Decoder(windows, n_best=7, max_answer_length=MAX_ANSWER_LENGTH, named=str)
    decoder.add(group, logits, batch)
    with waits() as found:
        decoder._decode()
    [decoded] = decoder._found
    assert [wait.split()[0] for wait in found] == ["cpu"]
    assert np.array_equal(decoded.example, windows.question[group])
    begin = batch.context_begin.numpy() - windows.first[group]
    for row in range(len(group)):
        # Each span has the logits of its own tokens, and no other.
        assert np.array_equal(decoded.start_logit[row], logits.start[row].numpy()[decoded.first[row] + begin[row]])
        assert np.array_equal(decoded.end_logit[row], logits.end[row].numpy()[decoded.last[row] + begin[row]])
        assert len(set(zip(decoded.first[row], decoded.last[row], strict=True))) == 7
        cls = int(batch.cls_index[row])
        assert (decoded.null_start[row], decoded.null_end[row]) == (logits.start[row, cls], logits.end[row, cls])
    assert decoded.start_logit.dtype == decoded.null_end.dtype == np.float32


def test_device_is_waited_for_once_a_batch_at_most_and_once_for_all_sums(bert, monkeypatch):
    collator, model, passes = collator_of(bert), load_model(tiny_config(bert).model).eval(), []

    # Transformers' own code looks at the mask.
    def without_a_wait(input_ids, **inputs):
        passes.append(len(input_ids))
        logits = torch.sin(input_ids.float())
        return type("Outputs", (), {"start_logits": logits, "end_logits": -logits})

    model.forward = without_a_wait
    monkeypatch.setattr(inference, "_SPANS_AT_ONCE", 1)
    limit = TokenLimit(200, "max_tokens")
    with waits() as found:
        score_corpus(model, collator, device=torch.device("cpu"), limit=limit, n_best=5, max_answer_length=4)
    assert sum(passes) == len(collator.windows)
    assert len(passes) > 2
    assert [wait.split()[0] for wait in found] == ["cpu"] * (len(passes) + 1)


@pytest.mark.parametrize("family", ["bert", "xlnet"], ids=["padded on the right", "padded on the left"])
def test_spans_are_the_same_however_many_batches_are_decoded_at_once(saved, monkeypatch, family):
    collator = collator_of(saved(family))
    results = []
    for at_once in (1, 3000, 2**30):
        monkeypatch.setattr(inference, "_SPANS_AT_ONCE", at_once)
        decoder = Decoder(collator.windows, n_best=7, max_answer_length=MAX_ANSWER_LENGTH, named=str)
        for group in collator.groups(np.arange(len(collator.windows)), 300):
            batch = collator(group)
            decoder.add(group, random_logits(batch, seed=int(group[0])), batch)
        results.append(decoder.join())
    for candidates, null in results[1:]:
        for found, expected in ((candidates, results[0][0]), (null, results[0][1])):
            assert all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in found.__slots__)


def test_windows_that_did_not_fit_are_not_there_twice(bert, monkeypatch):
    collator = collator_of(bert)
    groups = collator.groups(np.arange(len(collator.windows)), 300)
    decoder, whole = (
        Decoder(collator.windows, n_best=7, max_answer_length=MAX_ANSWER_LENGTH, named=str) for _ in range(2)
    )
    batches = [collator(group) for group in groups]
    for group, batch in zip(groups, batches, strict=True):
        whole.add(group, random_logits(batch), batch)
    expected, _ = whole.join()

    def too_much(*given, **named):
        raise torch.OutOfMemoryError

    logits = random_logits(batches[0])
    with monkeypatch.context() as patch:
        patch.setattr(inference, "_SPANS_AT_ONCE", 1)
        patch.setattr(inference, "window_candidates", too_much)
        with pytest.raises(torch.OutOfMemoryError):
            decoder.add(groups[0], logits, batches[0])
    for group, batch in zip(groups, batches, strict=True):
        decoder.add(group, random_logits(batch), batch)
    assert np.array_equal(decoder.join()[0].score, expected.score)


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 5), min_size=1), st.sampled_from([1, 3, 20, 5000]), st.integers(1, 60))
def test_longer_lists_are_those_that_the_model_would_give(bert, examples, n_best, max_answer_length):
    collator = collator_of(bert)
    windows = collator.windows
    kept = ContextLogits(windows, torch.device("cpu"))
    settings = {"n_best": n_best, "max_answer_length": max_answer_length}
    decoder = Decoder(windows, named=str, **settings)
    for group in collator.groups(np.arange(len(windows)), 300):
        batch = collator(group)
        logits = random_logits(batch, seed=int(group[0]))
        kept.keep(group, logits, batch)
        decoder.add(group, logits, batch)
    expected, _ = decoder.join()
    found = more_candidates(kept, np.array(sorted(examples)), **settings)
    mine = np.isin(expected.example, sorted(examples))
    for name in Candidates.__slots__:
        assert np.array_equal(getattr(found, name), getattr(expected, name)[mine]), name
