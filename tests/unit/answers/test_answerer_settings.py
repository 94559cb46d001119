"""What the settings of a model and of a call do to its windows and answers, and which of them are refused."""

import re

import pytest
import torch
from answerers import (
    ALL,
    CONTEXTS,
    ONE,
    QUESTIONS,
    assert_close,
    open_cpu,
    save_decisive,
    shapes,
    texts,
)
from families import FAMILIES, MISMATCHED
from small_runs import made_passages, tiny_config
from transformers import AutoModelForQuestionAnswering

from qa_ray.errors import ConfigError, DataError, ModelError
from qa_ray.model import token_limit
from qa_ray.model.compute import choose_device
from qa_ray.model.folder import save_model


@pytest.fixture(scope="module")
def bert_folder(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    save_decisive("bert", bert, folder, threshold=1.5)
    return folder


@pytest.fixture(scope="module")
def answerer(bert_folder):
    """A BERT that may say that there is no answer."""
    return open_cpu(bert_folder)


def test_forward_passes_are_bounded_in_tokens(bert_folder):
    answerer = open_cpu(bert_folder, max_tokens=200)
    seen = shapes(answerer, QUESTIONS, CONTEXTS)
    assert all(rows * width <= 200 for rows, width in seen)
    assert max(rows for rows, _ in seen) > 1


def test_forward_passes_suit_the_device_without_a_number(bert_folder, monkeypatch):
    monkeypatch.setattr(token_limit, "cache_bytes", lambda: 0)  # the least that a CPU takes: 1,024 tokens
    seen = shapes(open_cpu(bert_folder), 20 * QUESTIONS, 20 * CONTEXTS)
    tokens = [rows * width for rows, width in seen]
    assert 1024 - max(width for _, width in seen) < max(tokens) <= 1024 < sum(tokens)


@pytest.fixture(scope="module")
def bag_folder(tmp_path_factory):
    """A model that scores each token by itself, whatever stands around it."""
    family = FAMILIES["bert"]
    settings = family.config()
    settings.num_hidden_layers = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = AutoModelForQuestionAnswering.from_config(settings)
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight.zero_()
        model.qa_outputs.weight.mul_(30)
    folder = tmp_path_factory.mktemp("bag")
    config = tiny_config(folder, window={"max_length": 40, "stride": 10}, evaluate={"max_answer_length": 8})
    save_model(folder, model, family.tokenizer(), config, 0.5)
    return folder


def test_many_windows_give_what_one_window_gives(bag_folder):
    answerer = open_cpu(bag_folder)
    context = made_passages(3, num_words=(150, 160))[0].context
    many, one = answerer("Who?", context, top_k=ALL), answerer("Who?", context, top_k=ALL, max_seq_len=512)
    assert sum(rows for rows, _ in shapes(answerer, "Who?", context, max_seq_len=512)) == 1
    assert sum(rows for rows, _ in shapes(answerer, "Who?", context)) > 4
    assert_close([many], [one])


def test_settings_that_were_saved_hold_unless_the_call_says_otherwise(bag_folder, tmp_path):
    answerer = open_cpu(bag_folder)
    save_model(tmp_path, answerer.model, answerer.tokenizer, tiny_config(tmp_path), None)
    (tmp_path / "qa_ray.json").unlink()
    other = open_cpu(tmp_path)
    context = " ".join(CONTEXTS)
    as_saved = {"max_seq_len": 40, "doc_stride": 10, "max_answer_len": 8}
    assert shapes(answerer, "Who?", context) == shapes(other, "Who?", context, **as_saved)
    for name in as_saved:
        less = {key: value for key, value in as_saved.items() if key != name}
        assert count(answerer, context) == count(other, context, **as_saved) != count(other, context, **less), name
    assert texts(answerer("Who?", context, top_k=ALL)).count("") == 1
    assert texts(other("Who?", context, top_k=ALL)).count("") == 0


def count(answerer, context, **arguments):
    """Windows that a call runs, and answers that there are in all."""
    rows = sum(rows for rows, _ in shapes(answerer, "Who?", context, **arguments))
    return rows, len(answerer("Who?", context, top_k=ALL, handle_impossible_answer=False, **arguments))


def test_stride_is_at_most_half_of_a_window_that_the_call_asks_for(bag_folder):
    answerer = open_cpu(bag_folder)
    arguments = ("Who?", CONTEXTS[0])
    assert shapes(answerer, *arguments, max_seq_len=16) == shapes(answerer, *arguments, max_seq_len=16, doc_stride=8)


def test_long_questions_are_cut_where_they_must_or_shall_be(answerer):
    question = " ".join(["university"] * 300)
    assert answerer(question, CONTEXTS[0])
    limited = shapes(answerer, question, "The river.", max_question_len=4, max_seq_len=100)
    assert limited == [(1, 16)]
    assert shapes(answerer, question, "The river.", max_seq_len=512)[0][1] > 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "top_k=0 must be a whole number of at least 1"),
        ({"top_k": 1.5}, "top_k=1.5 must be a whole number"),
        ({"max_answer_len": 0}, "max_answer_len=0 must be"),
        ({"max_question_len": 0}, "max_question_len=0 must be"),
        ({"max_seq_len": -1}, "max_seq_len=-1 must be"),
        ({"max_seq_len": 513}, "max_seq_len=513 is beyond the 512 tokens"),
        ({"doc_stride": -1}, "doc_stride=-1 must be at least 0"),
        ({"max_seq_len": 40, "doc_stride": 36}, "doc_stride=36 leaves no room for a question in max_seq_len=40"),
    ],
    ids=str,
)
def test_setting_that_cannot_work_is_named(answerer, arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        answerer(*ONE, **arguments)


def test_input_that_holds_nothing_is_named(answerer):
    with pytest.raises(DataError, match=r"inputs\[1\]: context='  ': is empty"):
        answerer(["q", "q"], ["c", "  "])
    with pytest.raises(DataError, match=r"inputs\[1\]: context='\\x07': the tokenizer makes no token of it"):
        answerer(["q", "q"], ["c", "\x07"])


def test_model_with_broken_weights_is_refused(bert_folder):
    answerer = open_cpu(bert_folder)
    with torch.no_grad():
        answerer.model.qa_outputs.bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="input: the model's scores are not finite"):
        answerer(*ONE)


@pytest.mark.parametrize("device", ["cpu", -1, torch.device("cpu"), None])
def test_device_is_the_one_that_is_named(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 99])
def test_device_that_is_not_there_is_named(device):
    with pytest.raises(ConfigError, match=f"device={device!r} cannot be used: torch sees . CUDA devices"):
        choose_device(device)


def test_model_is_in_evaluation_mode(bert_folder):
    assert not any(module.training for module in open_cpu(bert_folder).model.modules())
    with pytest.raises(ConfigError, match="max_tokens=0 must be at least 1"):
        open_cpu(bert_folder, max_tokens=0)


def test_model_that_fails_on_its_tokenizer_is_refused_when_it_is_opened(tmp_path):
    MISMATCHED.save(tmp_path)
    with pytest.raises(ModelError, match=r"fails on a window of 384 tokens .*: AssertionError: .*max_length in its"):
        open_cpu(tmp_path)
