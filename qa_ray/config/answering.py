"""How a fine-tuned model answers, and what all jobs are asked for that let one answer."""

import math
from dataclasses import dataclass, field, fields

from qa_ray.config.data import Columns, DataConfig
from qa_ray.config.fields import refuse_secrets
from qa_ray.config.fine_tuning import AUTO, EvalConfig, WindowConfig
from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import AnswerPrecision, BadRows, DataFormat, ImpossibleAnswers
from qa_ray.errors import require

_OPTIONS = {
    "train": "data",
    "validation": "data",
    "max_validation_examples": "max-examples",
    "revision": "hub-revision",
}


NUM_RESAMPLES = 2000
"""Times that questions are drawn again for a confidence interval, if nothing else is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerSettings:
    """How a model's answers are decoded; the defaults are those of transformers' former pipeline."""

    max_length: int = 384
    """Tokens per window."""
    stride: int = 128
    """Context tokens that two neighbouring windows share."""
    n_best: int = 20
    """Answer candidates kept per question."""
    max_answer_length: int = 15
    """Longest answer in tokens."""
    no_answer_threshold: float | None = None
    """No answer is given where null score minus best score is above it; None: there always is one."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "no_answer_threshold":
                right = value is None or (type(value) in (int, float) and math.isfinite(value))
                require(right, f"{item.name}={value!r} must be a finite number or null")
            else:
                require(type(value) is int, f"{item.name}={value!r} must be a whole number")
        WindowConfig(max_length=self.max_length, stride=self.stride)
        EvalConfig(n_best=self.n_best, max_answer_length=self.max_answer_length)


class JobData(DataConfig):
    """Where a job's questions come from: fields are called by the options that set them."""

    __slots__ = ()

    def option(self, name: str) -> str:
        """How the user sets a field, such as `columns.context`."""
        return f"--{_OPTIONS.get(name) or name.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class AnsweringOptions:
    """The questions that a fine-tuned model is given, how it answers, and the cluster that it works on."""

    data: str
    """File, folder, glob or URI (s3://, gs://, package://) of the questions; a split's name with --hub."""
    hub: str | None = None
    """Hub data set such as rajpurkar/squad."""
    hub_config: str | None = None
    """Configuration name of the Hub data set."""
    hub_revision: str | None = None
    """Branch, tag or commit of the Hub data set."""
    format: DataFormat = DataFormat.AUTO
    """Layout of the files."""
    columns: Columns = field(default_factory=Columns)
    """Column names, where they differ from SQuAD's."""
    max_examples: int | None = None
    """Uses only the first so many questions."""
    max_length: int | None = None
    """Tokens per window, if not as saved with the model."""
    stride: int | None = None
    """Context tokens that two neighbouring windows share, if not as saved."""
    max_answer_length: int | None = None
    """Longest answer in tokens, if not as saved; 15 where nothing is saved, 30 in the SQuAD scripts."""
    precision: AnswerPrecision = AnswerPrecision.AUTO
    """Number format of the forward pass; with fp32 answers are those of QuestionAnswerer, else they may differ by
    rounding."""
    trust_remote_code: bool = False
    """Runs Python code that comes with a model. Only for models whose code you have read."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        refuse_secrets(self, lambda name: f"--{name.replace('_', '-')}")
        self.data_config()
        self.require_positive("max_answer_length")
        length = self.max_length
        require(length is None or length >= 8, f"--max-length={length} must be at least 8")

    def require_positive(self, *names: str) -> None:
        """Raise ConfigError where one of these fields is given, and is below 1."""
        for name in names:
            value = getattr(self, name)
            require(value in (None, AUTO) or value >= 1, f"--{name.replace('_', '-')}={value} must be at least 1")

    def data_config(
        self,
        on_bad_row: BadRows = BadRows.ERROR,
        impossible_answers: ImpossibleAnswers = ImpossibleAnswers.ERROR,
    ) -> DataConfig:
        """Where the questions come from."""
        return JobData(
            validation=self.data,
            hub=self.hub,
            hub_config=self.hub_config,
            revision=self.hub_revision,
            format=self.format,
            columns=self.columns,
            max_validation_examples=self.max_examples,
            on_bad_row=on_bad_row,
            impossible_answers=impossible_answers,
        )
