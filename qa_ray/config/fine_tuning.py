"""Every knob of a run: frozen dataclasses that check themselves. Those that change no result are in `operation`.

The text under a field is its documentation: the command line shows it as help.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from qa_ray.config.data import DataConfig
from qa_ray.config.fields import refuse_secrets
from qa_ray.config.operation import CheckpointConfig, ClusterConfig, PublishConfig, RunConfig, TrackingConfig
from qa_ray.config.policies import (
    BestBy,
    Language,
    NoAnswer,
    Precision,
    Schedule,
)
from qa_ray.errors import require

AUTO: Final = "auto"
"""Leaves a number to be found out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The pretrained model that is fine-tuned."""

    name: str = "bert-base-cased"
    """Hub id, local folder, or package://PACKAGE/FOLDER for one that a Python package carries."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer, if not the model's own."""
    dropout: float | None = None
    """Overrides every dropout rate of the model; 0 turns dropout off."""
    attention: str | None = None
    """Attention kernel by transformers' name: eager, sdpa, or flash_attention_2 for bf16 and fp16 on GPUs; without
    a word, sdpa for models that have it, but where a CPU trains in bf16 eager, which is faster there and takes more
    memory."""
    trust_remote_code: bool = False
    """Runs Python code that comes with the model. Only for models whose code you have read; a file cannot say it, the
    command line does."""
    resize_embeddings: bool = False
    """Gives the model embeddings for the tokens that its tokenizer has more, such as markers that you added to it."""

    def __post_init__(self) -> None:
        require(bool(self.name), "model.name is empty: name a Hub id or a folder")
        require(
            self.dropout is None or 0 <= self.dropout < 1,
            f"model.dropout={self.dropout} must be in [0, 1)",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """How a context that is longer than the model's input is cut."""

    max_length: int = 384
    """Tokens per window: question, context and special tokens together."""
    stride: int = 128
    """Context tokens that two neighbouring windows share."""

    def __post_init__(self) -> None:
        require(self.max_length >= 8, f"window.max_length={self.max_length} must be at least 8")
        require(
            0 <= self.stride < self.max_length,
            f"window.stride={self.stride} must be in [0, window.max_length={self.max_length})",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """How windows are grouped into optimizer steps."""

    size: int = 16
    """Windows per optimizer step, over all workers together."""
    max_tokens_per_device: int | Literal["auto"] | None = None
    """Padded tokens that a device takes at once; a larger share is split and its gradients are accumulated. A device
    whose memory does not suffice takes fewer from then on; with `auto` each GPU finds out beforehand how many fit."""
    pad_to_multiple_of: int = 8
    """Padded lengths are rounded up to a multiple of this, which bounds the number of distinct shapes."""
    packing: bool = False
    """Puts the windows that a device takes at once into one row, without any padding; for models whose attention can
    keep them apart."""
    length_pool: int = 128
    """Batches that are sorted by length together: more means less padding, 1 means none are sorted. Packed batches hold
    no padding, and are never sorted."""

    def __post_init__(self) -> None:
        for name in ("size", "pad_to_multiple_of", "length_pool"):
            require(getattr(self, name) >= 1, f"batch.{name}={getattr(self, name)} must be at least 1")
        limit = self.token_limit
        require(limit is None or limit >= 1, f"batch.max_tokens_per_device={limit} must be at least 1")

    @property
    def token_limit(self) -> int | None:
        """Padded tokens that a device takes at once, where a number is given."""
        limit = self.max_tokens_per_device
        return limit if isinstance(limit, int) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW and the learning-rate schedule."""

    learning_rate: float = 3e-5
    """Peak learning rate."""
    weight_decay: float = 0.01
    """Decoupled weight decay; biases and normalisation weights are never decayed."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's running means."""
    eps: float = 1e-8
    """Added to the denominator of Adam's update."""
    schedule: Schedule = Schedule.LINEAR
    """How the learning rate falls after warm-up."""
    decay_ratio: float = 0.2
    """Share of all steps, at the end, in which the learning rate falls to 0 with the schedule `wsd`."""
    warmup_ratio: float = 0.1
    """Share of all steps in which the learning rate rises from 0 to its peak."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"optim.learning_rate={self.learning_rate} must be above 0")
        require(self.weight_decay >= 0, f"optim.weight_decay={self.weight_decay} must not be negative")
        require(all(0 <= beta < 1 for beta in self.betas), f"optim.betas={self.betas} must each be in [0, 1)")
        require(self.eps > 0, f"optim.eps={self.eps} must be above 0")
        require(0 <= self.warmup_ratio <= 1, f"optim.warmup_ratio={self.warmup_ratio} must be in [0, 1]")
        require(0 <= self.decay_ratio <= 1, f"optim.decay_ratio={self.decay_ratio} must be in [0, 1]")
        require(
            self.schedule is not Schedule.WSD or self.warmup_ratio + self.decay_ratio <= 1,
            f"optim.warmup_ratio={self.warmup_ratio} and optim.decay_ratio={self.decay_ratio} are more than all steps",
        )
        require(self.max_grad_norm >= 0, f"optim.max_grad_norm={self.max_grad_norm} must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The training loop."""

    epochs: int = 3
    """Times that every training window is seen."""
    max_steps: int | None = None
    """Stops after so many optimizer steps; the schedule is planned for them."""
    patience: int | None = None
    """Ends training after so many evaluations one after another without a gain; their number is that of epochs, or what
    evaluate.per_epoch and evaluate.every_steps make it."""
    min_gain: float = 0.0
    """How much better evaluate.best_by must be than ever before to count as a gain, in its own unit."""
    seed: int = 42
    """Seed of the new head, dropout and the order of the batches."""
    precision: Precision = Precision.AUTO
    """Number format of the forward and backward pass."""
    tf32: bool = False
    """Lets GPUs round fp32 matrices to TF32's 10 bits of mantissa when they multiply them: several times as fast."""
    gradient_checkpointing: bool = False
    """Computes activations twice instead of keeping them: less memory, more time."""
    compile: bool = False
    """Compiles the model with torch.compile."""
    log_every: int = 10
    """Optimizer steps between two records of the training metrics."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"train.epochs={self.epochs} must be at least 1")
        require(
            self.max_steps is None or self.max_steps >= 1,
            f"train.max_steps={self.max_steps} must be at least 1",
        )
        require(self.patience is None or self.patience >= 1, f"train.patience={self.patience} must be at least 1")
        require(self.min_gain >= 0, f"train.min_gain={self.min_gain} must not be negative")
        require(self.seed >= 0, f"train.seed={self.seed} must not be negative")
        require(self.log_every >= 1, f"train.log_every={self.log_every} must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """How answers are decoded from logits, and how models are compared."""

    n_best: int = 20
    """Answer candidates kept per question."""
    max_answer_length: int = 30
    """Longest answer in tokens."""
    no_answer: NoAnswer = NoAnswer.AUTO
    """Whether a prediction may be that the context holds no answer."""
    language: Language = Language.SQUAD
    """The rule by which answers are compared with references: SQuAD's, made for English, or MLQA's for a language."""
    best_by: BestBy = BestBy.F1
    """The validation metric that says which evaluation's model is kept."""
    per_epoch: int = 1
    """Evaluations in each epoch, in equal distances; the last one is at its end."""
    every_steps: int | None = None
    """Evaluates after each so many optimizer steps, and at the end of each epoch."""
    max_tokens_per_device: int | Literal["auto"] = AUTO
    """Padded tokens in one forward pass; `auto` takes as many as a CPU's cache holds or as keep a GPU busy."""
    share: float = 1.0
    """Share of the validation questions, the same ones in each run, on which a model is measured while it trains; the
    one that is kept is measured on all of them in the end."""
    before_training: bool = False
    """Also evaluates the model as it is before the first step."""

    def __post_init__(self) -> None:
        for name in ("n_best", "max_answer_length", "max_tokens_per_device"):
            number = getattr(self, name)
            require(number == AUTO or number >= 1, f"evaluate.{name}={number} must be at least 1")
        require(0 < self.share <= 1, f"evaluate.share={self.share} must be above 0 and at most 1")
        require(self.per_epoch >= 1, f"evaluate.per_epoch={self.per_epoch} must be at least 1")
        every = self.every_steps
        require(every is None or every >= 1, f"evaluate.every_steps={every} must be at least 1")
        require(
            every is None or self.per_epoch == 1,
            f"evaluate.every_steps={every} and evaluate.per_epoch={self.per_epoch}: set one of them",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """One complete fine-tuning run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvalConfig = field(default_factory=EvalConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    run: RunConfig = field(default_factory=RunConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)

    def __post_init__(self) -> None:
        kernel = self.model.attention
        require(
            not self.batch.packing or kernel is None or kernel.startswith("flash_attention_"),
            f"batch.packing: the attention kernel model.attention={kernel} does not keep windows of one row apart: "
            "leave it out, or name flash_attention_2",
        )
        refuse_secrets(self, lambda name: name)
