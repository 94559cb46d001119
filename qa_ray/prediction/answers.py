"""Questions to rows of answers, and rows to the content of a file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet

from qa_ray.answers import QuestionAnswerer
from qa_ray.answers.ranking import Answered
from qa_ray.errors import DataError, ModelError
from qa_ray.prediction.options import OutFormat
from qa_ray.prediction.parts import InputQuestion

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
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        sink = pa.BufferOutputStream()
        pa.parquet.write_table(pa.Table.from_pylist(list(rows), self.schema()), sink)
        return bytes(sink.getvalue())

    def schema(self) -> pa.Schema:
        """Columns of a Parquet file."""
        answer = {"answers": pa.list_(pa.struct(list(_ANSWER.items())))} if self.top_k > 1 else _ANSWER
        text = pa.large_string()
        context = {"context": text} if self.keep_context else {}
        return pa.schema({"id": text, "question": text, **answer, **context, "reason": text, "record": text})
