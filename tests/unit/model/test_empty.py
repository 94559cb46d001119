"""A model without its weights computes what the real one would, and says how many tokens it takes."""

import copy
import threading

import pytest
import torch
import transformers
from families import FAMILIES
from transformers import AutoModelForQuestionAnswering

from qa_ray.model.empty import empty_models, num_positions

_NARROW = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50}
_ROBERTA_LIKE = _NARROW | {"num_hidden_layers": 3, "pad_token_id": 1, "max_position_embeddings": 34}
_DEBERTA = {"relative_attention": True, "max_position_embeddings": 34, "num_hidden_layers": 3} | _NARROW
OTHERS = {
    "roberta": transformers.RobertaConfig(**_ROBERTA_LIKE),
    "xlm-roberta": transformers.XLMRobertaConfig(**_ROBERTA_LIKE),
    "camembert": transformers.CamembertConfig(**_ROBERTA_LIKE),
    "data2vec": transformers.Data2VecTextConfig(**_ROBERTA_LIKE),
    "mpnet": transformers.MPNetConfig(**_ROBERTA_LIKE),
    "ibert": transformers.IBertConfig(**_ROBERTA_LIKE),
    "layoutlmv3": transformers.LayoutLMv3Config(
        **_ROBERTA_LIKE, coordinate_size=6, shape_size=4, has_spatial_attention_bias=False
    ),
    "longformer": transformers.LongformerConfig(
        **_ROBERTA_LIKE, attention_window=[4, 8, 4], sep_token_id=2, bos_token_id=0, eos_token_id=2
    ),
    "bert": transformers.BertConfig(**_NARROW, max_position_embeddings=32),
    "electra": transformers.ElectraConfig(**_NARROW, max_position_embeddings=32),
    "albert": transformers.AlbertConfig(**_NARROW, max_position_embeddings=32),
    "mobilebert": transformers.MobileBertConfig(**_NARROW, max_position_embeddings=32),
    "distilbert": transformers.DistilBertConfig(dim=32, n_heads=2, hidden_dim=64, max_position_embeddings=32),
    "big_bird": transformers.BigBirdConfig(**_NARROW, max_position_embeddings=32),
    "nystromformer": transformers.NystromformerConfig(
        **_NARROW, max_position_embeddings=32, segment_means_seq_len=32, num_landmarks=32
    ),
    "bart": transformers.BartConfig(d_model=32, vocab_size=50, max_position_embeddings=32),
    "gpt2": transformers.GPT2Config(n_embd=32, n_head=2, n_positions=32),
    "deberta-v2-absolute": transformers.DebertaV2Config(**_DEBERTA | {"max_position_embeddings": 32}),
}
"""Models with a table of positions that reaches 32 tokens."""
ENDLESS = {
    "deberta": transformers.DebertaConfig(**_DEBERTA, position_biased_input=False),
    "deberta-v2": transformers.DebertaV2Config(**_DEBERTA, position_biased_input=False),
    "xlnet": transformers.XLNetConfig(d_model=32, n_layer=3, n_head=2, d_inner=64, vocab_size=50),
    "funnel": transformers.FunnelConfig(d_model=32, d_inner=64, n_head=2, d_head=16, vocab_size=50),
    "bloom": transformers.BloomConfig(hidden_size=32, n_layer=3, n_head=2, vocab_size=50),
}
"""Models whose positions are relative."""


def first(settings):
    return next(empty_models(settings, trust_remote_code=False))


def computes(settings, num_tokens):
    ids = torch.full((1, num_tokens), 5)
    # Longformer looks for three of them.
    ids[0, [3, 4, -1]] = 2
    with torch.no_grad():
        try:
            logits = first(settings)(input_ids=ids, attention_mask=torch.ones_like(ids)).start_logits
        except (IndexError, RuntimeError):
            return False
    assert logits.shape == (1, num_tokens)
    return True


@pytest.mark.parametrize("name", OTHERS)
def test_limit_of_a_table_is_the_last_length_that_it_computes(name):
    limit = num_positions(OTHERS[name], trust_remote_code=False)
    assert limit == 32
    assert computes(OTHERS[name], limit)
    assert not computes(OTHERS[name], limit + 1)


@pytest.mark.parametrize("name", ENDLESS)
def test_relative_positions_have_no_limit(name):
    assert num_positions(ENDLESS[name], trust_remote_code=False) is None
    assert computes(ENDLESS[name], 100)


@pytest.mark.parametrize("kind", [transformers.ModernBertConfig, transformers.LlamaConfig, transformers.Qwen2Config])
def test_limit_of_rotary_positions_is_that_of_the_models_training(kind):
    settings = kind(**_NARROW, num_hidden_layers=2, max_position_embeddings=32)
    assert num_positions(settings, trust_remote_code=False) == 32


def test_limit_of_a_model_that_cannot_be_built_is_the_one_it_names():
    settings = transformers.BertConfig(hidden_size=33, num_attention_heads=2, max_position_embeddings=32)
    assert not list(empty_models(settings, trust_remote_code=False))
    assert num_positions(settings, trust_remote_code=False) == 32


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS, *ENDLESS])
def test_everything_but_the_weights_is_that_of_a_real_model(name):
    settings = FAMILIES[name].config() if name in FAMILIES else (OTHERS | ENDLESS)[name]
    real = AutoModelForQuestionAnswering.from_config(copy.deepcopy(settings))
    *_, whole = empty_models(settings, trust_remote_code=False)
    found, expected = dict(whole.named_buffers()), dict(real.named_buffers())
    assert found.keys() == expected.keys()
    assert all(torch.equal(buffer, expected[name]) for name, buffer in found.items())
    weights = dict(real.named_parameters())
    assert {name: weight.shape for name, weight in whole.named_parameters(remove_duplicate=False)}.items() >= {
        name: weight.shape for name, weight in weights.items()
    }.items()
    assert not any(weight.is_meta or weight.any() for weight in whole.parameters())
    assert not whole.training


@pytest.mark.parametrize("name", ["longformer", "deberta-v2-absolute", "roberta"])
def test_first_model_has_one_layer_and_the_second_all(name):
    settings = OTHERS[name]
    shallow, whole = empty_models(settings, trust_remote_code=False)
    assert [len(model.base_model.encoder.layer) for model in (shallow, whole)] == [1, 3]
    assert settings.num_hidden_layers == 3


def test_model_with_blocks_of_layers_is_made_whole():
    (whole,) = empty_models(ENDLESS["funnel"], trust_remote_code=False)
    assert sum(whole.config.block_sizes) == 12


def test_nobodys_random_numbers_are_drawn():
    before = torch.get_rng_state()
    list(empty_models(ENDLESS["xlnet"], trust_remote_code=False))
    assert torch.equal(torch.get_rng_state(), before)


def test_models_of_other_threads_keep_their_weights(monkeypatch):
    made = []

    def meanwhile(*_, **__):
        thread = threading.Thread(target=lambda: made.append(torch.nn.Linear(2, 2).weight.is_meta))
        thread.start()
        thread.join()
        raise RuntimeError

    monkeypatch.setattr(AutoModelForQuestionAnswering, "from_config", meanwhile)
    assert not list(empty_models(OTHERS["bert"], trust_remote_code=False))
    assert made == [False, False]
