"""A fine-tuned model as MLflow loads and serves it: questions and contexts in a table, answers in a table.

MLflow stores this file with the model and runs it when the model is loaded; it is imported nowhere else.
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from qa_ray.answers import QuestionAnswerer

_COLUMNS = ["answer", "score", "start", "end"]


class QuestionAnsweringModel(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """Answers the question of each row from the context of the same row."""

    def load_context(self, context: Any) -> None:
        """Open the model whose files MLflow has brought here."""
        self._answerer = QuestionAnswerer.from_pretrained(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return a row for each row of `question` and `context`: answer, score, start and end in the context.

        Raises:
            DataError: a question or a context is empty.
        """
        if not len(model_input):
            return pd.DataFrame(columns=_COLUMNS)
        answers = self._answerer(question=list(model_input["question"]), context=list(model_input["context"]))
        return pd.DataFrame(answers, columns=_COLUMNS, index=model_input.index)


set_model(QuestionAnsweringModel())
