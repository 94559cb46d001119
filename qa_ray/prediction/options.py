"""What the prediction job is asked for."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import tyro

from qa_ray.config.answering import AnsweringOptions
from qa_ray.config.fine_tuning import AUTO
from qa_ray.config.policies import NoAnswer
from qa_ray.errors import require


class OutFormat(StrEnum):
    """How answers are written."""

    PARQUET = "parquet"
    JSONL = "jsonl"


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(AnsweringOptions):
    """Answer many questions with a fine-tuned model on a Ray cluster, and write the answers in parts.

    Every question gives one row: id, question, answer, score, start and end (characters in the context), reason (null,
    or why it could not be answered) and record (the file and row it was read from). No answer is an empty one. The
    same command goes on where it was interrupted: a part that is written is not done again.

    Questions need no answers and no ids. JSON lines, Parquet, CSV and TSV stream from the disk or the object store,
    whatever their size. A document of JSON is read whole, file by file; a Hub data set is first stored in the cache on
    the local disk.
    """

    model: tyro.conf.Positional[str]
    """Folder of a model or a run, Hub id, or MLflow URI (models:/NAME@ALIAS, runs:/ID/PATH)."""
    out: str = "predictions"
    """Folder or URI that takes predict.json and the folder answers; seen by every node of a cluster."""
    out_format: OutFormat = OutFormat.PARQUET
    """Layout of the answers."""
    keep_context: bool = False
    """Writes the context beside each answer."""
    part_size: int = 512
    """Most questions in a part: so many are done again, for each worker, after an interruption. The parts of a file
    begin with 32 and grow, so that answers are there soon."""
    revision: str | None = None
    """Branch, tag or commit of MODEL on the Hub."""
    top_k: int = 1
    """Answers to each question; more than one are written as a list, best first."""
    no_answer_threshold: float | None = None
    """No answer is given where null score minus best score is above it, if not as saved."""
    no_answer: NoAnswer = NoAnswer.AUTO
    """Whether an answer may be empty; auto: if there is a threshold."""
    max_tokens_per_device: int | Literal["auto"] = AUTO
    """Padded tokens in one forward pass; `auto` takes as many as a CPU's cache holds or as keep a GPU busy."""

    def __post_init__(self) -> None:
        require(bool(self.model), "MODEL is empty: name a folder, a Hub id or an MLflow URI")
        super().__post_init__()
        require(bool(self.out), "--out is empty: name a folder or a URI")
        self.require_positive("part_size", "top_k", "max_tokens_per_device")

    def recorded(self) -> dict[str, Any]:
        """Everything else that decides what is written, ready for JSON."""
        columns = {name: getattr(self.columns, name) for name in ("id", "question", "context")}
        names = ("out_format", "keep_context", "part_size", "max_examples", "top_k", "no_answer", "precision", "format")
        return {name: getattr(self, name) for name in names} | {f"columns.{name}": columns[name] for name in columns}

    @property
    def handle_impossible(self) -> bool | None:
        """What QuestionAnswerer is told of empty answers."""
        return {NoAnswer.AUTO: None, NoAnswer.ALLOWED: True, NoAnswer.NEVER: False}[self.no_answer]
