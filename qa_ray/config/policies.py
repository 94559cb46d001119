"""The choices that a configuration offers: enums, so that a choice has a name and a typing error is caught."""

import math
from enum import StrEnum


class Precision(StrEnum):
    """Number format of the forward and backward pass; weights and optimizer stay fp32."""

    AUTO = "auto"
    """bf16 where the hardware computes in it, GPU or CPU; else fp16 on GPUs and fp32 on CPUs."""
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class AnswerPrecision(StrEnum):
    """Number format of a forward pass that answers questions."""

    AUTO = "auto"
    """bf16 where the hardware computes in it, GPU or CPU; else fp16 on GPUs and fp32 on CPUs."""
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    """Linear layers in integers of 8 bits, on CPUs: a quarter of their memory, and faster."""


class Schedule(StrEnum):
    """How the learning rate falls after warm-up."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"
    WSD = "wsd"
    """Warm-up, stable, decay: it stays at its peak until the last steps, so that a short run begins as a long one."""


class DataFormat(StrEnum):
    """How a data file is laid out."""

    AUTO = "auto"
    """By the file's ending: .json, .jsonl or .ndjson, .parquet, .csv, .tsv; text also with .gz, .bz2, .zst or .xz."""
    SQUAD = "squad"
    """JSON: nested SQuAD, a list of rows, {"data": [rows]}, or lines."""
    JSONL = "jsonl"
    PARQUET = "parquet"
    CSV = "csv"
    TSV = "tsv"


class BadRows(StrEnum):
    """What happens to a row that cannot be used."""

    ERROR = "error"
    SKIP = "skip"


class ImpossibleAnswers(StrEnum):
    """What happens to answers that stand at a question whose is_impossible is true."""

    ERROR = "error"
    """The row contradicts itself, and cannot be used."""
    IGNORE = "ignore"
    """They are plausible, yet wrong ones: the question has no answer."""


class BestBy(StrEnum):
    """The validation metric that says which evaluation's model is kept."""

    F1 = "f1"
    EXACT_MATCH = "exact_match"
    LOSS = "loss"

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is: times this, more is always better."""
        return -1 if self is BestBy.LOSS else 1

    def merit(self, value: float | None) -> float:
        """A number of which more is better; what is not finite, or not known, is worse than all else."""
        return self.sign * value if value is not None and math.isfinite(value) else -math.inf


class NoAnswer(StrEnum):
    """Whether a prediction may be that the context holds no answer."""

    AUTO = "auto"
    """Allowed if the training or the validation data has questions without an answer."""
    ALLOWED = "allowed"
    NEVER = "never"


class Language(StrEnum):
    """The rule by which the texts of answers are compared: what their words are, and which of them do not count."""

    SQUAD = "squad"
    """As the official SQuAD scripts do, which were made for English."""
    ARABIC = "ar"
    GERMAN = "de"
    ENGLISH = "en"
    SPANISH = "es"
    HINDI = "hi"
    VIETNAMESE = "vi"
    CHINESE = "zh"
    """Each Chinese character is a word."""

    @property
    def rule(self) -> str:
        """What texts are compared by, in words; all but SQuAD's are those of MLQA's evaluation script."""
        return "SQuAD's definition" if self is Language.SQUAD else f"MLQA's rule for {self}"


class Resume(StrEnum):
    """What happens where a run of this name exists."""

    IF_AVAILABLE = "if_available"
    """It goes on from its last checkpoint; a new run starts where there is none."""
    REQUIRED = "required"
    """It goes on; without a checkpoint nothing starts."""
    NEVER = "never"
    """Nothing starts: the name is taken."""
