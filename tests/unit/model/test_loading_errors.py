import shutil

import pytest
from families import FAMILIES
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    ViTConfig,
)

from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.errors import ConfigError, ModelError, UserError
from qa_ray.model.loading import (
    check_model,
    check_window,
    input_limit,
    learn_template,
    load_model,
    load_settings,
    load_tokenizer,
)


def config_of(folder, **fields):
    return ModelConfig(name=str(folder), **fields)


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def assert_says(error, *parts):
    assert isinstance(error.value, UserError)
    for part in parts:
        assert str(part) in str(error.value)


def test_model_type_without_a_span_head_is_refused(bert, tmp_path):
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError) as error:
        check_model(config_of(tmp_path), load_tokenizer(config_of(bert)))
    assert_says(error, f"model.name={tmp_path}", "vit models", "choose a model of another family")


def test_folder_without_weights_is_refused(tmp_path):
    FAMILIES["bert"].config().save_pretrained(tmp_path)
    with pytest.raises(ModelError) as error:
        load_model(config_of(tmp_path))
    assert_says(error, tmp_path, "model.safetensors", "a folder must hold config.json, safetensors weights")


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b""])
def test_broken_weights_are_refused(bert, tmp_path, content):
    folder = copy_of(bert, tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError) as error:
        load_model(config_of(folder))
    assert_says(error, folder, "cannot load the model")


@pytest.mark.parametrize("family", ["gpt2", "deberta"])
def test_weights_of_another_family_are_refused(bert, saved, tmp_path, family):
    folder = copy_of(bert, tmp_path)
    shutil.copy(saved(family) / "config.json", folder)
    with pytest.raises(ModelError) as error:
        load_model(config_of(folder))
    assert_says(error, f"model.name={folder}", "does not hold the weights of")


@pytest.mark.parametrize("name", ["/no/such/folder", "no/such/folder", "./folder", "nobody/no-such-model"])
@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_model_that_is_nowhere_is_named(name, load, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as error:
        load(ModelConfig(name=name))
    is_hub_id = name == "nobody/no-such-model"
    assert_says(error, name, "needs network access" if is_hub_id else "there is no such folder")


def test_folder_without_a_tokenizer_is_refused(tmp_path):
    FAMILIES["bert"].config().save_pretrained(tmp_path)
    with pytest.raises(ModelError) as error:
        load_tokenizer(config_of(tmp_path))
    assert_says(error, f"model.tokenizer={tmp_path}", "tokenizer.json")


def test_broken_tokenizer_is_refused(bert, tmp_path):
    folder = copy_of(bert, tmp_path)
    (folder / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(ModelError) as error:
        load_tokenizer(config_of(folder))
    assert_says(error, folder, "cannot load the tokenizer")


def test_tokenizer_without_a_fast_form_is_refused(bert, monkeypatch):
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", property(lambda tokenizer: False))
    with pytest.raises(ModelError) as error:
        load_tokenizer(config_of(bert))
    assert_says(error, f"model.tokenizer={bert}", "no fast form", "Choose a model with a fast tokenizer")


def test_tokenizer_larger_than_the_embeddings_is_refused(bert, saved):
    config = config_of(bert, tokenizer=str(saved("llama")))
    tokenizer = load_tokenizer(config)
    size = FAMILIES["bert"].config().vocab_size
    assert len(tokenizer) > size
    with pytest.raises(ModelError) as error:
        check_model(config, tokenizer)
    assert_says(error, saved("llama"), len(tokenizer), bert, size, "do not belong together")


def test_tokenizer_without_padding_pads_with_its_end_token(saved, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(saved("llama"))
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token is None
    loaded = load_tokenizer(config_of(tmp_path))
    assert loaded.pad_token == loaded.eos_token == "</s>"
    assert learn_template(loaded, load_settings(config_of(saved("llama")))).pad_id == loaded.eos_token_id


def test_tokenizer_without_padding_and_end_is_refused(saved, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(saved("llama"))
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError) as error:
        load_tokenizer(config_of(tmp_path))
    assert_says(error, f"model.tokenizer={tmp_path}", "neither a padding nor an end token")


@pytest.mark.parametrize("of_tokenizer", [True, False], ids=["the tokenizer's limit", "the model's positions"])
def test_window_longer_than_the_model_takes_is_refused(bert, of_tokenizer):
    config = config_of(bert)
    tokenizer = load_tokenizer(config)
    limit = tokenizer.model_max_length
    if not of_tokenizer:
        limit = AutoConfig.from_pretrained(bert).max_position_embeddings
        tokenizer.model_max_length = int(1e30)
    check_window(config, tokenizer, limit)
    with pytest.raises(ConfigError) as error:
        check_window(config, tokenizer, limit + 1)
    assert_says(error, f"window.max_length={limit + 1}", limit, "lower it")


@pytest.mark.parametrize(
    ("family", "of_tokenizer", "limit"),
    [("roberta", 10**30, 518), ("roberta", 700, 518), ("roberta", 518, 518), ("roberta", 517, 517), ("bert", 700, 520)],
)
def test_lower_of_the_tokenizers_and_the_models_limit_holds(saved, family, of_tokenizer, limit):
    assert AutoConfig.from_pretrained(saved(family)).max_position_embeddings == 520
    config = config_of(saved(family))
    tokenizer = load_tokenizer(config)
    tokenizer.model_max_length = of_tokenizer
    assert input_limit(config, tokenizer) == limit


def test_model_with_relative_positions_takes_any_window(tmp_path):
    FAMILIES["xlnet"].save(tmp_path)
    tokenizer = load_tokenizer(config_of(tmp_path))
    tokenizer.model_max_length = int(1e30)
    check_window(config_of(tmp_path), tokenizer, 100_000)


def test_folder_that_is_no_models_is_told_by_what_it_lacks(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelError) as error:
        load_tokenizer(config_of(tmp_path))
    assert_says(error, f"cannot load the tokenizer {tmp_path}: the folder holds no config.json")
