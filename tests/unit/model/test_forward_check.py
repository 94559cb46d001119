"""A model that would fail in every worker is told before, once; no other one is."""

from dataclasses import replace

import pytest
import transformers
from families import FAMILIES, MISMATCHED
from small_runs import made_passages, make_collator, tiny_config

from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.errors import ModelError
from qa_ray.model.forward_check import check_forward, made_windows
from qa_ray.model.loading import load_settings

_NARROW = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 2}


def windows_of(family, max_length=24):
    return made_windows(family.tokenizer(), family.template(), max_length)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("max_length", [8, 510])
def test_no_sound_family_is_refused(name, max_length):
    check_forward(ModelConfig(name=name), FAMILIES[name].config(), windows_of(FAMILIES[name], max_length))


def test_model_that_needs_its_own_tokenizers_windows_gets_them():
    roberta = FAMILIES["roberta"]
    matched = replace(MISMATCHED, backend=roberta.backend, special_tokens=roberta.special_tokens)
    check_forward(ModelConfig(), matched.config(), windows_of(matched))


def test_model_with_another_tokenizers_windows_is_refused_with_names_length_and_reason():
    config = ModelConfig(name="long", tokenizer="bert")
    with pytest.raises(ModelError) as error:
        check_forward(config, MISMATCHED.config(), windows_of(MISMATCHED), option="--max-length")
    for words in (
        "the model long fails on a window of 24 tokens of the tokenizer bert: AssertionError: There should be exactly",
        "(lower --max-length, and see whether model and tokenizer belong together)",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("settings", "changes", "reason"),
    [
        ({"max_position_embeddings": 23}, {}, "IndexError|RuntimeError"),
        ({"type_vocab_size": 1}, {}, "IndexError: index out of range"),
        ({"vocab_size": 3}, {}, "IndexError: index out of range"),
    ],
    ids=["positions", "types", "tokens"],
)
def test_whatever_a_model_has_no_row_for_is_found(settings, changes, reason):
    config = FAMILIES["bert"].config()
    config.update(settings)
    with pytest.raises(ModelError, match=f"window of 24 tokens of the tokenizer bert: ({reason})"):
        check_forward(ModelConfig(name="bert"), config, windows_of(FAMILIES["bert"]))


def test_longest_window_of_both_splits_is_the_one(bert):
    config = tiny_config(bert, window={"max_length": 96})
    short, long = (make_collator(config, made_passages(4, num_words=(words, words))) for words in (5, 40))
    settings = load_settings(config.model)
    settings.max_position_embeddings = 40
    check_forward(config.model, settings, short, short)
    longest = int(long.windows.length.max())
    assert 40 < longest < 96
    for collators in ((short, long), (long, short)):
        with pytest.raises(ModelError, match=f"a window of {longest} tokens"):
            check_forward(config.model, settings, *collators)


def test_model_of_which_one_layer_cannot_compute_is_not_refused():
    tokenizer = FAMILIES["llama"].tokenizer()
    settings = transformers.Qwen3NextConfig(
        **_NARROW, vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=16, linear_num_value_heads=2,
        linear_num_key_heads=2, linear_key_head_dim=16, linear_value_head_dim=16, num_experts=2, num_experts_per_tok=1,
        moe_intermediate_size=16, shared_expert_intermediate_size=16,
        layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip
    check_forward(ModelConfig(), settings, windows_of(FAMILIES["llama"]))


@pytest.mark.parametrize(
    "settings",
    [
        transformers.ViTConfig(),
        transformers.BertConfig(hidden_size=33, num_attention_heads=2),
    ],
    ids=["no span head", "broken configuration"],
)
def test_model_that_cannot_be_built_is_not_judged(settings):
    check_forward(ModelConfig(), settings, windows_of(FAMILIES["bert"]))


def test_tokens_that_get_embeddings_are_no_mistake():
    settings = FAMILIES["bert"].config()
    settings.vocab_size -= 300
    check_forward(ModelConfig(resize_embeddings=True), settings, windows_of(FAMILIES["bert"]))
    assert settings.vocab_size == FAMILIES["bert"].config().vocab_size - 300


_CODE = """
import torch
from transformers import BertConfig, BertForQuestionAnswering

class OwnConfig(BertConfig):
    model_type = "own"

class OwnModel(BertForQuestionAnswering):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("order", torch.arange(config.max_position_embeddings))

    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids, attention_mask, position_ids=self.order[None, : input_ids.shape[1]])
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """Make a configuration, and settings, of a model whose code comes with it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    return lambda code: save_own_code(tmp_path / "own", code)


def save_own_code(folder, code):
    settings = FAMILIES["bert"].config()
    settings.auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForQuestionAnswering": "own.OwnModel"}
    settings.save_pretrained(folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"model_type": "bert"', '"model_type": "own"'))
    (folder / "own.py").write_text(code)
    config = ModelConfig(name=str(folder), trust_remote_code=True)
    settings = load_settings(config)
    assert type(settings).__name__ == "OwnConfig"
    return config, settings


def test_model_whose_code_comes_with_it_is_run_if_it_is_trusted(own_code):
    config, settings = own_code(_CODE)
    windows = windows_of(FAMILIES["bert"])
    check_forward(config, settings, replace(windows, template=replace(windows.template, uses_type_ids=False)))
    with pytest.raises(ModelError, match=r"TypeError: .*token_type_ids"):
        check_forward(config, settings, windows)


def test_model_of_whose_buffers_nothing_is_known_is_not_judged(own_code):
    made = "torch.empty(config.max_position_embeddings, dtype=torch.long).copy_(torch.arange(520))"
    code = _CODE.replace("torch.arange(config.max_position_embeddings)", made)
    assert code != _CODE
    check_forward(*own_code(code), windows_of(FAMILIES["bert"]))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("max_length", [9, 64])
def test_made_windows_are_as_long_as_windows_may_be(name, max_length):
    windows = windows_of(FAMILIES[name], max_length)
    assert windows.windows.length.max() == max_length
