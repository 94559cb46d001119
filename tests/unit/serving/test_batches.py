"""Questions that come together are answered together, with the answers that each would get alone."""

import asyncio
import threading

import pytest
import torch
from answerers import save_decisive

from qa_ray.answers import QuestionAnswerer
from qa_ray.errors import ModelError
from qa_ray.serving.batching import Batcher

LONG = " ".join(f"Charles built the bridge number {number} in Prague." for number in range(30))
ASKED = [("Who built it?", f"Number {number}: " + LONG[: 40 + 37 * number]) for number in range(24)]


@pytest.fixture(scope="module")
def folder(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("batched")
    save_decisive("bert", bert, folder, threshold=1.5)
    return folder


@pytest.fixture
def answerer(folder):
    return QuestionAnswerer.from_pretrained(str(folder), device="cpu", max_tokens=256)


class Held:
    """Holds the model's thread back until all that is asked waits."""

    def __init__(self, answerer, monkeypatch):
        self.release, self.batches, answer = threading.Event(), [], answerer.answer

        def held(prepared):
            assert self.release.wait(60)
            self.batches.append(prepared)
            return answer(prepared)

        monkeypatch.setattr(answerer, "answer", held)


async def ask_all(answerer, prepared, held=None):
    batcher = Batcher()
    waiting = [asyncio.ensure_future(batcher.answer(answerer, one)) for one in prepared]
    await asyncio.sleep(0)
    if held:
        held.release.set()
    return await asyncio.gather(*waiting, return_exceptions=True)


def test_answers_are_those_of_one_by_one_and_batches_are_bounded_in_tokens(answerer, monkeypatch):
    settings = [{"top_k": 1 + number % 3, "align_to_words": number % 2 == 0} for number in range(len(ASKED))]
    expected = [answerer(*one, **given) for one, given in zip(ASKED, settings, strict=True)]
    prepared = [answerer.prepare(*one, **given) for one, given in zip(ASKED, settings, strict=True)]
    held = Held(answerer, monkeypatch)
    found = asyncio.run(ask_all(answerer, prepared, held))
    for one, answers, given in zip(found, expected, settings, strict=True):
        answers = answers if given["top_k"] > 1 else [answers]
        assert [(a["start"], a["end"]) for a in one.answers] == [(a["start"], a["end"]) for a in answers]
        assert [a["score"] for a in one.answers] == pytest.approx([a["score"] for a in answers], rel=1e-4)
    # The first is taken at once, or with what came until then.
    sizes = [sum(one.num_tokens for one in batch) for batch in held.batches]
    assert all(size <= 512 or len(batch) == 1 for size, batch in zip(sizes, held.batches, strict=True))
    assert max(len(batch) for batch in held.batches) > 2
    assert [one for batch in held.batches for one in batch] == prepared
    told = [one.batch for one in found if one.batch]
    assert [(batch.num_questions, batch.num_tokens) for batch in told] == [
        (len(batch), size) for batch, size in zip(held.batches, sizes, strict=True)
    ]


def test_who_is_cancelled_takes_no_time(answerer, monkeypatch):
    prepared = [answerer.prepare(*one) for one in ASKED[:6]]
    held = Held(answerer, monkeypatch)

    async def some():
        batcher = Batcher()
        waiting = [asyncio.ensure_future(batcher.answer(answerer, one)) for one in prepared]
        await asyncio.sleep(0.05)
        for one in waiting[2:5]:
            one.cancel()
        await asyncio.sleep(0)
        held.release.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    found = asyncio.run(some())
    assert [isinstance(one, asyncio.CancelledError) for one in found] == [False, False, True, True, True, False]
    answered = [one for batch in held.batches[1:] for one in batch]
    assert not set(map(id, answered)) & set(map(id, prepared[2:5]))


def test_a_question_that_fails_does_not_make_others_fail(answerer, monkeypatch):
    prepared = [answerer.prepare(*one) for one in ASKED[:5]]
    answer = answerer.answer

    def fails(asked):
        if prepared[3] in asked:
            raise ModelError("its scores are no numbers")
        return answer(asked)

    monkeypatch.setattr(answerer, "answer", fails)
    found = asyncio.run(ask_all(answerer, prepared))
    assert [isinstance(one, ModelError) for one in found] == [False, False, False, True, False]


def test_the_thread_outlives_whatever_a_model_raises(answerer, monkeypatch):
    prepared = answerer.prepare(*ASKED[0])

    async def twice():
        batcher = Batcher()
        with monkeypatch.context() as broken:
            broken.setattr(answerer.model, "forward", lambda **inputs: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await batcher.answer(answerer, prepared)
        assert batcher.alive
        return await batcher.answer(answerer, prepared)

    assert asyncio.run(twice()).answers


def test_two_models_never_share_a_batch(folder, answerer):
    other = QuestionAnswerer.from_pretrained(str(folder), device="cpu", max_tokens=256)
    with torch.no_grad():
        other.model.qa_outputs.weight.neg_()
    pairs = [(one, asked) for asked in ASKED[:4] for one in (answerer, other)]
    expected = [one(*asked) for one, asked in pairs]

    async def mixed():
        batcher = Batcher()
        return await asyncio.gather(*(batcher.answer(one, one.prepare(*asked)) for one, asked in pairs))

    found = asyncio.run(mixed())
    assert [one.answers[0]["start"] for one in found] == [one["start"] for one in expected]
    assert [one.answers[0]["score"] for one in found] == pytest.approx([one["score"] for one in expected], rel=1e-4)
