"""Where questions come from: files, columns, and what becomes of rows that cannot be used."""

from dataclasses import dataclass, field

from qa_ray.config.policies import BadRows, DataFormat, ImpossibleAnswers
from qa_ray.errors import require
from qa_ray.locations import SECRET_RULE, holds_secret


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Names of the columns, and of the keys of questions in nested JSON, where SQuAD's own do as well."""

    id: str = "id"
    """Column of the question's id."""
    context: str = "context"
    """Column of the text that is searched."""
    question: str = "question"
    """Column of the question."""
    answers: str = "answers"
    """Column of the answers: {text: [...], answer_start: [...]}, a list of {text, answer_start}, or plain text."""
    answer_start: str = "answer_start"
    """Column of the first character of plain-text answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where questions come from."""

    train: str = "train"
    """File, folder, glob or URI (s3://, gs://, package://) of the training questions; a split's name with data.hub."""
    validation: str = "validation"
    """The same for the validation questions."""
    validation_share: float | None = None
    """Takes so large a share of the contexts in data.train for validation, and reads no data.validation."""
    hub: str | None = None
    """Hub data set such as rajpurkar/squad; data.train and data.validation then name its splits."""
    hub_config: str | None = None
    """Configuration name of the Hub data set."""
    revision: str | None = None
    """Branch, tag or commit of the Hub data set."""
    format: DataFormat = DataFormat.AUTO
    """Layout of the files."""
    columns: Columns = field(default_factory=Columns)
    """Column names, where they differ from SQuAD's."""
    max_train_examples: int | None = None
    """Uses only so many training questions, for quick runs."""
    max_validation_examples: int | None = None
    """Uses only so many validation questions."""
    on_bad_row: BadRows = BadRows.ERROR
    """A row that cannot be used stops the run, or is left out and written to bad_rows.jsonl."""
    impossible_answers: ImpossibleAnswers = ImpossibleAnswers.ERROR
    """Answers where is_impossible is true are an error, or are ignored: the question has no answer."""

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            require(bool(getattr(self, name)), f"{self.option(name)} is empty: name the questions")
            require(not holds_secret(getattr(self, name)), f"{self.option(name)} {SECRET_RULE}")
        for name in ("max_train_examples", "max_validation_examples"):
            limit = getattr(self, name)
            require(limit is None or limit > 0, f"{self.option(name)}={limit} must be at least 1")
        share = self.validation_share
        require(
            share is None or 0 < share < 1,
            f"{self.option('validation_share')}={share} must be above 0 and below 1: 0.1 takes a tenth of the contexts",
        )

    def field_of(self, split: str) -> str:
        """Name of the field that says where the questions of `train` or `validation` are read."""
        return split if self.validation_share is None else "train"

    def option(self, name: str) -> str:
        """How the user sets a field, such as `columns.context`; error messages name it so."""
        return f"data.{name}"
