"""Load a tokenizer and a model; a batch in, start and end logits out."""

import inspect
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.data.template import Template
from qa_ray.data.tokenization import parse_tokenizer as load_backend
from qa_ray.errors import ConfigError, ModelError
from qa_ray.locations import resolve, without_secrets
from qa_ray.model.empty import num_positions
from qa_ray.model.masks import take_masks_from_host
from qa_ray.model.onednn import use_onednn

logger = logging.getLogger(__name__)

# Tokenizers without a limit of their own give a number of thirty digits.
_NO_LIMIT = 10**12


def load_tokenizer(config: ModelConfig) -> FastTokenizer:
    """Load the tokenizer that belongs to a model.

    Raises:
        ModelError: it cannot be found, or there is no fast (Rust) form of it.
    """
    name = config.tokenizer or config.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            resolve(name),
            # The revision names a state of the model's repository, not of another one's.
            revision=config.revision if config.tokenizer is None else None,
            trust_remote_code=config.trust_remote_code,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(_cannot_load("tokenizer", name, error)) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"model.tokenizer={name}: {type(tokenizer).__name__} has no fast form, and without its character "
            "offsets answers cannot be placed. Choose a model with a fast tokenizer (a tokenizer.json)."
        )
    # Of a folder without any tokenizer, transformers makes one that knows special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"model.tokenizer={name}: there is no vocabulary: the folder must hold tokenizer.json. "
            "Save the tokenizer beside the model, or name another one with model.tokenizer"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelError(f"model.tokenizer={name} has neither a padding nor an end token: windows cannot be padded")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_settings(config: ModelConfig) -> PretrainedConfig:
    """Load a model's configuration.

    Raises:
        ModelError: it cannot be found.
    """
    try:
        return AutoConfig.from_pretrained(
            resolve(config.name), revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(_cannot_load("model", config.name, error)) from error


def learn_template(tokenizer: FastTokenizer, settings: PretrainedConfig | None = None) -> Template:
    """Learn from a tokenizer how its family joins a question and its context, for the model with these settings.

    Without settings, it is a model that takes whatever the tokenizer makes.
    """
    known = (tokenizer.cls_token_id, tokenizer.bos_token_id)
    return Template.learn(
        load_backend(tokenizer.backend_tokenizer.to_str()),
        pad_left=tokenizer.padding_side == "left",
        pad_id=tokenizer.pad_token_id,
        pad_type_id=tokenizer.pad_token_type_id,
        uses_type_ids="token_type_ids" in tokenizer.model_input_names
        and (settings is None or _takes_type_ids(settings)),
        no_answer_ids=tuple(token_id for token_id in known if token_id is not None),
    )


def _takes_type_ids(settings: PretrainedConfig) -> bool:
    """Whether the model tells types of tokens apart; of models whose code comes with them, their tokenizer knows it."""
    # RoBERTa has an embedding for one type, to which all tokens belong where none is given.
    if getattr(settings, "type_vocab_size", None) == 1:
        return False
    models = AutoModelForQuestionAnswering._model_mapping
    if type(settings) not in models:
        return True
    return "token_type_ids" in inspect.signature(models[type(settings)].forward).parameters


def input_limit(config: ModelConfig, tokenizer: FastTokenizer) -> int | None:
    """Most tokens that the model takes: the tokenizer's limit or the model's positions, whichever is lower."""
    positions = num_positions(load_settings(config), trust_remote_code=config.trust_remote_code)
    limits = [limit for limit in (tokenizer.model_max_length, positions) if limit is not None and limit < _NO_LIMIT]
    return min(limits, default=None)


def check_window(config: ModelConfig, tokenizer: FastTokenizer, max_length: int) -> None:
    """Refuse windows that are longer than the model's input.

    Raises:
        ConfigError: `max_length` is beyond the model's `input_limit`.
    """
    limit = input_limit(config, tokenizer)
    if limit is not None and limit < max_length:
        raise ConfigError(f"window.max_length={max_length} is beyond the {limit} tokens that the model takes: lower it")


def check_model(config: ModelConfig, tokenizer: FastTokenizer) -> None:
    """Find out from the model's configuration alone whether it can be trained; its weights are not loaded.

    Raises:
        ModelError: the model cannot be found, its family has no span head, or the tokenizer is not its own.
    """
    settings = load_settings(config)
    if type(settings) not in AutoModelForQuestionAnswering._model_mapping and not config.trust_remote_code:
        if AutoModelForQuestionAnswering.__name__ in getattr(settings, "auto_map", {}):
            raise ModelError(_brings_code(config.name))
        raise ModelError(
            f"model.name={config.name}: transformers has no question-answering head for {settings.model_type} models: "
            "choose a model of another family, such as BERT, RoBERTa, DeBERTa, XLNet or ModernBERT"
        )
    needed = _num_embeddings(tokenizer)
    if needed > settings.vocab_size and not config.resize_embeddings:
        raise ModelError(
            f"the tokenizer {config.tokenizer or config.name} has {needed} tokens, but the model {config.name} "
            f"has embeddings for {settings.vocab_size}: they do not belong together. If you added tokens to the "
            "model's own tokenizer, model.resize_embeddings=true gives the model embeddings for them"
        )


def _num_embeddings(tokenizer: FastTokenizer) -> int:
    """Embeddings that a tokenizer's ids need; they may leave gaps."""
    last: int = max(tokenizer.get_vocab().values())
    return last + 1


def count_weights(config: ModelConfig) -> int:
    """Number of a model's weights, from its configuration alone.

    Raises:
        ModelError: the model cannot be found, or its family has no span head.
    """
    settings = load_settings(config)
    try:
        with torch.device("meta"):
            model = AutoModelForQuestionAnswering.from_config(settings, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(_cannot_load("model", config.name, error)) from error
    return sum(weight.numel() for weight in model.parameters())


def load_model(config: ModelConfig, *, new_head: bool = True) -> PreTrainedModel:
    """Load an encoder or decoder with a span head, in fp32, from safetensors only.

    A model without such a head gets a new one, which is said in the log; with new_head=False it is refused. What is new
    is drawn from torch's random numbers: the same on all ranks that are seeded alike.

    Raises:
        ModelError: the model cannot be found, has no span head for its family, holds other weights than it says, or,
            with new_head=False, lacks any weight.
    """
    take_masks_from_host()
    settings = load_settings(config)
    if config.dropout is not None:
        _override_dropout(settings, config.dropout)
    for name in ("use_cache", "use_mems_eval"):
        # States kept for text to come, of which a span head has no use: gigabytes for a large decoder.
        if hasattr(settings, name):
            setattr(settings, name, False)
    model, missing = _load_weights(AutoModelForQuestionAnswering, config, settings)
    prefix = f"{model.base_model_prefix}."
    body = {name for name in missing if name.startswith(prefix)}
    head = missing - body
    if body and body == {name for name in model.state_dict() if name.startswith(prefix)}:
        # Decoders such as Llama name their body otherwise with a span head than without.
        loaded, body = _load_weights(AutoModel, config, settings)
        setattr(model, model.base_model_prefix, loaded)
    if len(head | body) > len(model.state_dict()) // 2:
        raise ModelError(
            f"model.name={config.name} does not hold the weights of {type(model).__name__}: {len(head | body)} of "
            f"{len(model.state_dict())} tensors are missing, such as {min(head | body)}: choose a folder whose weights "
            "are those of the model that its config.json describes"
        )
    if (head or body) and not new_head:
        lacking = "has no question-answering head" if head else "lacks a part of its weights"
        raise ModelError(
            f"{config.name} {lacking} ({min(head or body)} is not there), so its answers would be random: fine-tune it "
            "first, or choose a model that was fine-tuned for extractive question answering"
        )
    if body:
        logger.warning("%s lacks %d tensors, such as %s: they start at random", config.name, len(body), min(body))
    if head:
        logger.info("%s has no question-answering head: a new one is trained from scratch", config.name)
    if config.resize_embeddings:
        _add_embeddings(model, _num_embeddings(load_tokenizer(config)))
    use_onednn(model)
    return model


def _add_embeddings(model: PreTrainedModel, num_tokens: int) -> None:
    """Grow the embeddings to `num_tokens`; those of models that have more, to make a round number, stay."""
    if num_tokens > model.get_input_embeddings().weight.shape[0]:
        # New rows are drawn as the others were before they were trained. The other way, from the mean of all others,
        # spares a head that predicts tokens, of which there is none; and it makes all new tokens alike.
        model.resize_token_embeddings(num_tokens, mean_resizing=False)


def _load_weights(
    head: type[AutoModel], config: ModelConfig, settings: PretrainedConfig
) -> tuple[PreTrainedModel, set[str]]:
    """Load a model with this kind of head, and return it with the names of the tensors that were not there."""
    try:
        model, report = head.from_pretrained(
            resolve(config.name),
            config=settings,
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
            attn_implementation=config.attention,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(_cannot_load("model", config.name, error)) from error
    return model, set(report["missing_keys"])


def _override_dropout(settings: PretrainedConfig, rate: float) -> None:
    for name, value in settings.to_dict().items():
        is_rate = isinstance(value, int | float) and not isinstance(value, bool)
        if is_rate and ("dropout" in name or name.endswith("pdrop")):
            setattr(settings, name, rate)


def _brings_code(name: str) -> str:
    return (
        f"{name} brings Python code of its own, and what a folder or a file says does not let it run: if you have read "
        "that code, add --trust-remote-code to the command, or --model.trust-remote-code where a run is configured"
    )


def _cannot_load(what: str, name: str, error: Exception) -> str:
    if "`trust_remote_code=True`" in str(error):  # transformers has no error of its own for it
        return _brings_code(name)
    reason = without_secrets(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
    # transformers takes a folder that is not there for a Hub id.
    if (name.startswith(("/", ".", "~")) or name.count("/") > 1) and not Path(resolve(name)).exists():
        reason = "there is no such folder"
    elif Path(resolve(name)).is_dir() and not (Path(resolve(name)) / "config.json").is_file():
        reason = "the folder holds no config.json"
    return (
        f"cannot load the {what} {name}: {reason} "
        "(a Hub id needs network access to the Hub or a filled cache; a folder must hold config.json, safetensors "
        "weights and tokenizer.json)"
    )
