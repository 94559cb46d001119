"""Tiny tokenizers and models of every model family, trained and initialised in the test process.

FAMILIES["xlnet"].tokenizer()     a transformers tokenizer with the family's layout, trained on a few sentences
FAMILIES["xlnet"].config()        a configuration of two layers that fits it
FAMILIES["xlnet"].template()      how windows are joined
FAMILIES["xlnet"].save(folder)    both, with random weights in safetensors, as `model.name` takes them
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tiny_tokenizers
import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForQuestionAnswering, PretrainedConfig, PreTrainedTokenizerFast

from qa_ray.data.template import Template
from qa_ray.model.loading import learn_template


@dataclass(frozen=True, kw_only=True)
class Family:
    """One layout of question and context, with a model that takes it."""

    name: str
    backend: Callable[[], Tokenizer]
    special_tokens: dict[str, str]
    """Roles as transformers names them (cls_token, pad_token, ...) to tokens."""
    config_name: str
    settings: dict[str, Any]
    """Arguments of the configuration."""
    pad_left: bool = False
    context_first: bool = False
    pad_type_id: int = 0
    uses_type_ids: bool = False
    trims_offsets: bool = False
    """Whether the tokenizer takes the space before a word off its offset."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The trained tokenizer; the same object each time."""
        return self._tokenizer

    @property
    def is_unigram(self) -> bool:
        """Whether the tokenizer is a unigram model, which has special tokens as pieces."""
        return "Unigram" in type(self.tokenizer().backend_tokenizer.model).__name__

    def untrimmed(self) -> PreTrainedTokenizerFast:
        """The same tokenizer, with offsets as they are before any trimming."""
        return FAMILIES[f"{self.name}-untrimmed"].tokenizer() if self.trims_offsets else self.tokenizer()

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=self.backend(),
            padding_side="left" if self.pad_left else "right",
            model_max_length=512,
            model_input_names=["input_ids", *["token_type_ids"] * self.uses_type_ids, "attention_mask"],
            **self.special_tokens,
        )
        # There is no argument for it, and it is not saved: a tokenizer that is loaded again pads with 0.
        tokenizer._pad_token_type_id = self.pad_type_id
        return tokenizer

    def config(self) -> PretrainedConfig:
        """Two layers, 32 wide."""
        tokenizer = self.tokenizer()
        roles = {
            f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos", "cls", "sep")
        }
        config_class = getattr(transformers, self.config_name)
        return config_class(vocab_size=len(tokenizer), **roles, **self.settings)

    def template(self) -> Template:
        """How the tokenizer joins pairs for the model."""
        return learn_template(self.tokenizer(), self.config())

    def save(self, folder: Path) -> None:
        """Write the tokenizer and a randomly initialised model with a span head; the same weights each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForQuestionAnswering.from_config(self.config())
        model.save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)


_BERT_TOKENS = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
_ROBERTA_TOKENS = {
    "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
    "cls_token": "<s>", "sep_token": "</s>",
}  # fmt: skip
_XLNET_TOKENS = {
    "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
    "cls_token": "<cls>", "sep_token": "<sep>", "mask_token": "<mask>",
}  # fmt: skip
_WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
# RoBERTa numbers positions from the padding id + 1.
_POSITIONS = {"max_position_embeddings": 520}


def _roberta_family(name: str, *, add_prefix_space: bool, trim_offsets: bool) -> Family:
    return Family(
        name=name,
        backend=lambda: tiny_tokenizers.roberta(add_prefix_space=add_prefix_space, trim_offsets=trim_offsets),
        special_tokens=_ROBERTA_TOKENS,
        config_name="RobertaConfig",
        settings=_WIDTHS | _POSITIONS | {"type_vocab_size": 1},
        trims_offsets=trim_offsets,
    )


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="bert",
            backend=lambda: tiny_tokenizers.word_piece(lowercase=True),
            special_tokens=_BERT_TOKENS,
            config_name="BertConfig",
            settings=_WIDTHS | _POSITIONS,
            uses_type_ids=True,
        ),
        Family(
            name="bert-cased",
            backend=lambda: tiny_tokenizers.word_piece(lowercase=False),
            special_tokens=_BERT_TOKENS,
            config_name="BertConfig",
            settings=_WIDTHS | _POSITIONS,
            uses_type_ids=True,
        ),
        Family(
            name="distilbert",
            backend=lambda: tiny_tokenizers.word_piece(lowercase=True),
            special_tokens=_BERT_TOKENS,
            config_name="DistilBertConfig",
            settings={"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64} | _POSITIONS,
        ),
        _roberta_family("roberta", add_prefix_space=False, trim_offsets=True),
        _roberta_family("roberta-untrimmed", add_prefix_space=False, trim_offsets=False),
        _roberta_family("roberta-prefix", add_prefix_space=True, trim_offsets=True),
        _roberta_family("roberta-prefix-untrimmed", add_prefix_space=True, trim_offsets=False),
        Family(
            name="deberta",
            backend=tiny_tokenizers.deberta,
            special_tokens=_BERT_TOKENS,
            config_name="DebertaV2Config",
            settings=_WIDTHS
            | _POSITIONS
            | {
                "type_vocab_size": 0,
                "relative_attention": True,
                "position_buckets": 32,
                "pos_att_type": ["p2c", "c2p"],
                "position_biased_input": False,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
            },
            uses_type_ids=True,
        ),
        Family(
            name="xlnet",
            backend=tiny_tokenizers.xlnet,
            special_tokens=_XLNET_TOKENS,
            config_name="XLNetConfig",
            settings={"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
            pad_left=True,
            context_first=True,
            pad_type_id=3,
            uses_type_ids=True,
        ),
        Family(
            name="modernbert",
            backend=tiny_tokenizers.modernbert,
            special_tokens=_BERT_TOKENS,
            config_name="ModernBertConfig",
            settings=_WIDTHS | _POSITIONS | {"local_attention": 16, "global_attn_every_n_layers": 2},
        ),
        Family(
            name="gpt2",
            backend=lambda: tiny_tokenizers.byte_level(["<|endoftext|>"]),
            special_tokens=dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
            config_name="GPT2Config",
            settings={"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 520},
        ),
        Family(
            name="llama",
            backend=tiny_tokenizers.llama,
            special_tokens={
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": "</s>",
            },
            config_name="LlamaConfig",
            settings=_WIDTHS | _POSITIONS | {"num_key_value_heads": 1},
            pad_left=True,
        ),
    )
}

MISMATCHED = Family(
    name="mismatched",
    backend=lambda: tiny_tokenizers.word_piece(lowercase=True),
    special_tokens=_BERT_TOKENS,
    config_name="LongformerConfig",
    settings=_WIDTHS | _POSITIONS | {"attention_window": [8, 16]},
)
"""A Longformer, which looks for the three separators of RoBERTa's windows, with BERT's, which have two."""
