"""The tokenizers of the model families, with a few hundred tokens, made from the sentences below.

They are the same in each process. The trainers of `tokenizers` go through hash maps in an order that is drawn anew in
each process, except where an alphabet is given: hence no trainer for WordPiece and Unigram.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence

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

TEXT = (
    "Which river flows through the old town, and who built the bridge over it in 1357?",
    "The river Vltava flows through Prague; Charles IV. laid the first stone of the bridge at 5:31 on 9 July 1357.",
    "It is 515.8 metres (1,692 ft) long and nearly 10 m wide, and rests on 16 arches shielded by ice guards.",
    "How many people live there?  About 1.3 million people live in the city, and 2.7 million in its surroundings.",
    "A café in Málaga, a naïve façade in Besançon, Dvořák's house in Nelahozeves, Łódź, Ørsted and Ångström.",
    "What did the author say? “It's well-known,” she wrote \u2013 “that don't, can't and won't are contractions…”",
    "The temperature fell to \u221240 °C, that is \u221240 °F; the price rose by 12½ % to £3,000 or €3.450,00.",
    "東京は日本の首都です。北京是中国的首都。서울은 대한민국의 수도이다.",
    "Москва — столица России, Αθήνα είναι πρωτεύουσα της Ελλάδας, القاهرة عاصمة مصر.",
    "The model 😀 answers questions 👍🏽 about people 👩‍👩‍👧 and flags 🇨🇿.",
    "In what year was the university founded? The university was founded in 1348, and the cathedral in 1344.",
    "When the normans came, the king's army marched from the north to the south of the country in nineteen days.",
)


def word_piece(*, lowercase: bool) -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    words = _words(normalizer, pre_tokenizer)
    starts = _pieces(words, 0) | words
    inside = _pieces(Counter(word[1:] for word in words.elements()), 150)
    tokens = [*special, *starts, *(f"##{piece}" for piece in inside)]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = _template(tokenizer, "[CLS] $A:0 [SEP] $B:1 [SEP]:1")
    return tokenizer


def byte_level(special: Sequence[str | AddedToken], *, add_prefix_space: bool = False) -> Tokenizer:
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


def roberta(*, add_prefix_space: bool, trim_offsets: bool) -> Tokenizer:
    mask = AddedToken("<mask>", lstrip=True, special=True)
    tokenizer = byte_level(["<s>", "<pad>", "</s>", "<unk>", mask], add_prefix_space=add_prefix_space)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.token_to_id("</s>")),
        ("<s>", tokenizer.token_to_id("<s>")),
        add_prefix_space=add_prefix_space,
        trim_offsets=trim_offsets,
    )
    return tokenizer


def modernbert() -> Tokenizer:
    tokenizer = byte_level(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = _template(tokenizer, "[CLS] $A:0 [SEP] $B:1 [SEP]:1")
    return tokenizer


def _unigram(special: list[str], unknown: str, normalizer: normalizers.Normalizer, layout: str) -> Tokenizer:
    pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    words = _words(normalizer, pre_tokenizer)
    pieces = _pieces(words, 150) | words
    total = sum(pieces.values())
    scores = [(piece, math.log(number / total)) for piece, number in pieces.items()]
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in special), *scores], special.index(unknown)))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = _template(tokenizer, layout)
    return tokenizer


def deberta() -> Tokenizer:
    normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC(), normalizers.Strip(left=False)]
    )
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    return _unigram(special, "[UNK]", normalizer, "[CLS] $A:0 [SEP] $B:1 [SEP]:1")


def xlnet() -> Tokenizer:
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


def llama() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>"]
    # Symbols outside this alphabet fall back to bytes, which the trainer does not know.
    alphabet = sorted({character for line in TEXT for character in line if character < "\u0250"} - {" "} | {"▁"})
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
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


def _words(normalizer: normalizers.Normalizer, pre_tokenizer: pre_tokenizers.PreTokenizer) -> Counter[str]:
    """How often each word occurs, in the order of the text."""
    return Counter(word for line in TEXT for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(line)))


def _pieces(words: Counter[str], longer: int) -> Counter[str]:
    """Every character, and the most common `longer` pieces, with how often each occurs."""
    found = Counter(
        word[start:end]
        for word in words.elements()
        for start in range(len(word))
        for end in range(start + 1, len(word) + 1)
    )
    characters = sorted(piece for piece in found if len(piece) == 1)
    best = sorted(found.keys() - characters, key=lambda piece: (-found[piece], -len(piece), piece))
    return Counter({piece: found[piece] for piece in [*characters, *best[:longer]]})


def _template(tokenizer: Tokenizer, pair: str) -> processors.TemplateProcessing:
    special = {piece.split(":")[0] for piece in pair.split() if not piece.startswith("$")}
    single = pair.replace(" $B:1 [SEP]:1", "").replace(" $B:1 <sep>:1", "").replace(" <s>:1 $B:1", "")
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, tokenizer.token_to_id(token)) for token in special]
    )
