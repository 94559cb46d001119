"""What runs on each actor of the pool: answer a part's questions, and write the rows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet
import ray
import torch

from qa_ray.answers import QuestionAnswerer
from qa_ray.errors import DataError, ModelError, UserError
from qa_ray.model.folder import SavedModel, open_for
from qa_ray.prediction.options import OutFormat, PredictionOptions
from qa_ray.prediction.output_folder import ANSWERS, OutputFolder
from qa_ray.prediction.parts import InputQuestion, Part, pack, unpack
from qa_ray.runs.process import set_up_process
from qa_ray.schema import Answered
from qa_ray.storage.strict_json import to_json

_ANSWER = {"answer": pa.large_string(), "score": pa.float64(), "start": pa.int64(), "end": pa.int64()}
_AnswersOrReason = list[Answered] | str
"""The answers to a question, best first, or the reason why there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerFormat:
    """What is asked of the answerer, and what is written of it."""

    top_k: int
    handle_impossible: bool | None
    keep_context: bool
    out_format: OutFormat

    def rows(self, questions: Sequence[InputQuestion], answerer: QuestionAnswerer) -> list[dict[str, Any]]:
        """Return a row for each question, in order, whether it can be answered or not."""
        sound = [item for item in questions if item.reason is None]
        found = iter(self._answers(sound, answerer))
        return [self._row(item, next(found) if item.reason is None else item.reason) for item in questions]

    def _answers(self, questions: Sequence[InputQuestion], answerer: QuestionAnswerer) -> list[_AnswersOrReason]:
        if not questions:
            return []
        inputs = [{"question": item.question, "context": item.context} for item in questions]
        try:
            results = answerer(inputs, top_k=self.top_k, handle_impossible_answer=self.handle_impossible)
        except (DataError, ModelError) as error:
            # The text holds no token, or the scores are not finite: those who share the call must not suffer.
            if len(questions) == 1:
                return [str(error).removeprefix("inputs[0]: ")]
            middle = len(questions) // 2
            return self._answers(questions[:middle], answerer) + self._answers(questions[middle:], answerer)
        lists = results if self.top_k > 1 else [[result] for result in cast(list[Answered], results)]
        return cast(list[_AnswersOrReason], lists)

    def _row(self, item: InputQuestion, found: _AnswersOrReason) -> dict[str, Any]:
        answers = [] if isinstance(found, str) else [{name: dict(answer)[name] for name in _ANSWER} for answer in found]
        if self.top_k > 1:
            content: dict[str, Any] = {"answers": answers}
        else:
            content = answers[0] if answers else dict.fromkeys(_ANSWER)
        reason = found if isinstance(found, str) else None
        context = {"context": item.context} if self.keep_context else {}
        return {"id": item.id, "question": item.question, **content, **context, "reason": reason, "record": item.record}

    def encode(self, rows: Sequence[dict[str, Any]]) -> bytes:
        """Return the content of the file that holds `rows`."""
        if self.out_format is OutFormat.JSONL:
            return "".join(to_json(row, ensure_ascii=False) + "\n" for row in rows).encode()
        sink = pa.BufferOutputStream()
        pa.parquet.write_table(pa.Table.from_pylist(list(rows), self.schema()), sink)
        return bytes(sink.getvalue())

    def schema(self) -> pa.Schema:
        """Columns of a Parquet file."""
        answer = {"answers": pa.list_(pa.struct(list(_ANSWER.items())))} if self.top_k > 1 else _ANSWER
        text = pa.large_string()
        context = {"context": text} if self.keep_context else {}
        return pa.schema({"id": text, "question": text, **answer, **context, "reason": text, "record": text})


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredPart:
    """What is told of a part."""

    num_rows: int
    num_reasons: int
    """Rows with a reason in place of an answer."""
    size: float
    """What it takes of the input's size."""
    finished_before: bool
    failure: UserError | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionTask:
    """All that an actor needs."""

    options: PredictionOptions
    fingerprint: str
    """Of the model that the driver saw."""
    folder: OutputFolder
    use_gpu: bool
    num_threads: int


def fingerprint(saved: SavedModel) -> str:
    """SHA-256 of a model's weights and its tokenizer."""
    digest = hashlib.sha256(saved.tokenizer.backend_tokenizer.to_str().encode())
    for name, tensor in sorted(saved.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


class PartAnswerer:
    """Answers part after part; the model is loaded for the first one."""

    def __init__(self, task: PredictionTask) -> None:
        self._task = task
        self._answerer: QuestionAnswerer | None = None
        options = task.options
        self._format = AnswerFormat(
            top_k=options.top_k,
            handle_impossible=options.handle_impossible,
            keep_context=options.keep_context,
            out_format=options.out_format,
        )

    def __call__(self, packed: pa.Table) -> pa.Table:
        """Answer and write the part in a packed table; return an AnsweredPart in another.

        An error that the user can mend is returned, since Ray would print the traceback of what is raised.
        """
        part: Part
        (part,) = unpack(packed)
        rows, failure = [], part.failure
        try:
            rows = self._write(part.name, part.questions) if part.questions else []
        except UserError as error:
            failure = error
        answered = AnsweredPart(
            num_rows=part.num_rows if failure is None else 0,
            num_reasons=sum(row["reason"] is not None for row in rows),
            size=part.size,
            finished_before=part.questions is None,
            failure=failure,
        )
        return pack(answered)

    def _write(self, name: str, questions: list[InputQuestion]) -> list[dict[str, Any]]:
        """Write the rows of a part, and return them."""
        if self._answerer is None:
            self._answerer = self._load()
        rows = self._format.rows(questions, self._answerer)
        self._task.folder.write(f"{ANSWERS}/{name}", self._format.encode(rows))
        return rows

    def _load(self) -> QuestionAnswerer:
        options = self._task.options
        set_up_process(self._task.num_threads)
        node = ray.util.get_node_ip_address()
        try:
            saved = open_for(options, options.model, revision=options.revision)
        except UserError as error:
            raise ModelError(f"node {node}: {error}") from error
        if fingerprint(saved) != self._task.fingerprint:
            raise ModelError(
                f"node {node}: {options.model} is not the model that the job began with: it changed meanwhile, or is "
                "another one on that node; start again with a model that all nodes see, and another --out"
            )
        device = "cuda" if self._task.use_gpu else "cpu"
        return QuestionAnswerer(
            saved, device=device, max_tokens=options.max_tokens_per_device, precision=options.precision
        )
