"""Tiny tokenizers and models of every model family, trained and initialised in the test process.

FAMILIES["xlnet"].tokenizer()     a transformers tokenizer with the family's layout, trained on the text below
FAMILIES["xlnet"].config()        a configuration of two layers that fits it
FAMILIES["xlnet"].save(folder)    both, with random weights in safetensors, as `model.name` takes them
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoModelForQuestionAnswering, PretrainedConfig, PreTrainedTokenizerFast

TEXT = (
    "Which river flows through the old town, and who built the bridge over it in 1357?",
    "The river Vltava flows through Prague; Charles IV. laid the first stone of the bridge at 5:31 on 9 July 1357.",
    "It is 515.8 metres (1,692 ft) long and nearly 10 m wide, and rests on 16 arches shielded by ice guards.",
    "How many people live there?  About 1.3 million people live in the city, and 2.7 million in its surroundings.",
    "A café in Málaga, a naïve façade in Besançon, Dvořák's house in Nelahozeves, Łódź, Ørsted and Ångström.",
    "What did the author say? “It's well-known,” she wrote – “that don't, can't and won't are contractions…”",
    "The temperature fell to −40 °C, that is −40 °F; the price rose by 12½ % to £3,000 or €3.450,00.",
    "東京は日本の首都です。北京是中国的首都。서울은 대한민국의 수도이다.",
    "Москва — столица России, Αθήνα είναι πρωτεύουσα της Ελλάδας, القاهرة عاصمة مصر.",
    "The model 😀 answers questions 👍🏽 about people 👩‍👩‍👧 and flags 🇨🇿.",
    "In what year was the university founded? The university was founded in 1348, and the cathedral in 1344.",
    "When the normans came, the king's army marched from the north to the south of the country in nineteen days.",
)


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
    space_before_first: bool = False
    """Whether the first token of a later window keeps the space before it in its offset (see test_windows)."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The trained tokenizer; the same object each time."""
        return self._tokenizer

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

    def save(self, folder: Path) -> None:
        """Write the tokenizer and a randomly initialised model with a span head; the same weights each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForQuestionAnswering.from_config(self.config())
        model.save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)


def _word_piece(*, lowercase: bool) -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = _template(tokenizer, "[CLS] $A:0 [SEP] $B:1 [SEP]:1")
    return tokenizer


def _byte_level(special: Sequence[str | AddedToken], *, add_prefix_space: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def _roberta(*, add_prefix_space: bool, trim_offsets: bool) -> Tokenizer:
    mask = AddedToken("<mask>", lstrip=True, special=True)
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", mask], add_prefix_space=add_prefix_space)
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=("</s>", tokenizer.token_to_id("</s>")),
        cls_token=("<s>", tokenizer.token_to_id("<s>")),
        add_prefix_space=add_prefix_space,
        trim_offsets=trim_offsets,
    )
    return tokenizer


def _modernbert() -> Tokenizer:
    tokenizer = _byte_level(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = _template(tokenizer, "[CLS] $A:0 [SEP] $B:1 [SEP]:1")
    return tokenizer


def _unigram(special: list[str], unknown: str, normalizer: normalizers.Normalizer, layout: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(
        TEXT, trainers.UnigramTrainer(vocab_size=500, special_tokens=special, unk_token=unknown, show_progress=False)
    )
    tokenizer.post_processor = _template(tokenizer, layout)
    return tokenizer


def _deberta() -> Tokenizer:
    normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC(), normalizers.Strip(left=False)]
    )
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    return _unigram(special, "[UNK]", normalizer, "[CLS] $A:0 [SEP] $B:1 [SEP]:1")


def _xlnet() -> Tokenizer:
    replacements = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    normalizer = normalizers.Sequence(
        [
            *replacements,
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"]
    return _unigram(special, "<unk>", normalizer, "$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2")


def _llama() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>"]
    # Symbols outside this alphabet fall back to bytes, which the trainer does not know.
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, limit_alphabet=80, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    definition = json.loads(tokenizer.to_str())
    vocabulary = definition["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    definition["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    definition["pre_tokenizer"]["split"] = False
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    tokenizer.post_processor = _template(tokenizer, "<s> $A:0 <s>:1 $B:1")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _template(tokenizer: Tokenizer, pair: str) -> processors.TemplateProcessing:
    special = {piece.split(":")[0] for piece in pair.split() if not piece.startswith("$")}
    single = pair.replace(" $B:1 [SEP]:1", "").replace(" $B:1 <sep>:1", "").replace(" <s>:1 $B:1", "")
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, tokenizer.token_to_id(token)) for token in special]
    )


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
        backend=lambda: _roberta(add_prefix_space=add_prefix_space, trim_offsets=trim_offsets),
        special_tokens=_ROBERTA_TOKENS,
        config_name="RobertaConfig",
        settings=_WIDTHS | _POSITIONS | {"type_vocab_size": 1},
        space_before_first=add_prefix_space and trim_offsets,
    )


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="bert",
            backend=lambda: _word_piece(lowercase=True),
            special_tokens=_BERT_TOKENS,
            config_name="BertConfig",
            settings=_WIDTHS | _POSITIONS,
            uses_type_ids=True,
        ),
        Family(
            name="bert-cased",
            backend=lambda: _word_piece(lowercase=False),
            special_tokens=_BERT_TOKENS,
            config_name="BertConfig",
            settings=_WIDTHS | _POSITIONS,
            uses_type_ids=True,
        ),
        Family(
            name="distilbert",
            backend=lambda: _word_piece(lowercase=True),
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
            backend=_deberta,
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
            backend=_xlnet,
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
            backend=_modernbert,
            special_tokens=_BERT_TOKENS,
            config_name="ModernBertConfig",
            settings=_WIDTHS | _POSITIONS | {"local_attention": 16, "global_attn_every_n_layers": 2},
        ),
        Family(
            name="gpt2",
            backend=lambda: _byte_level(["<|endoftext|>"]),
            special_tokens=dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
            config_name="GPT2Config",
            settings={"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 520},
        ),
        Family(
            name="llama",
            backend=_llama,
            special_tokens={
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": "</s>",
            },  # fmt: skip
            config_name="LlamaConfig",
            settings=_WIDTHS | _POSITIONS | {"num_key_value_heads": 1},
            pad_left=True,
        ),
    )
}
