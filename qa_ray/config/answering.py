"""What all jobs are asked for that let a fine-tuned model answer questions."""

from dataclasses import dataclass, field

import tyro

from qa_ray.config.fine_tuning import Columns, DataConfig
from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import BadRows, DataFormat, Precision
from qa_ray.errors import require
from qa_ray.locations import SECRET_RULE, holds_secret


@dataclass(frozen=True, kw_only=True)
class AnsweringOptions:
    """A fine-tuned model, the questions that it is given, and the cluster that it works on."""

    model: tyro.conf.Positional[str]
    """Folder of a model or a run, Hub id, or MLflow URI (models:/NAME@ALIAS, runs:/ID/PATH)."""
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
    precision: Precision = Precision.AUTO
    """Number format of the forward pass; with fp32 answers are those of QuestionAnswerer, else they may differ by
    rounding."""
    trust_remote_code: bool = False
    """Runs Python code that comes with a model. Only for models whose code you have read."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        require(bool(self.model), "MODEL is empty: name a folder, a Hub id or an MLflow URI")
        require(bool(self.data), "--data is empty: name the questions")
        require(not holds_secret(self.data), f"--data {SECRET_RULE}")
        require(
            self.max_examples is None or self.max_examples >= 1,
            f"--max-examples={self.max_examples} must be at least 1",
        )

    def data_config(self, on_bad_row: BadRows = BadRows.ERROR) -> DataConfig:
        """Where the questions come from."""
        return DataConfig(
            validation=self.data,
            hub=self.hub,
            hub_config=self.hub_config,
            revision=self.hub_revision,
            format=self.format,
            columns=self.columns,
            max_validation_examples=self.max_examples,
            on_bad_row=on_bad_row,
        )
