"""The SQuAD scores as a metric of the evaluate library that needs no Hub: `evaluate.load(squad_metric.__file__)`."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from qa_ray.config.policies import Language
from qa_ray.scores.metrics import squad_scores, squad_v2_scores

_DESCRIPTION = "Exact match and F1 of answer texts, after SQuAD v1.1 (`squad`) and v2.0 (`squad_v2`)."
_INPUTS = """
Args:
    predictions: dicts of `id` and `prediction_text`; `squad_v2` has `no_answer_probability` as well.
    references: dicts of `id` and `answers`, a dict of the lists `text` and `answer_start`.
    no_answer_threshold (`squad_v2`): the no-answer probability above which a question is predicted unanswerable;
        None takes the one of the best F1.
    language: the rule by which texts are compared: squad, or MLQA's for ar, de, en, es, hi, vi or zh.
"""
_CITATION = "Rajpurkar et al. 2016, arXiv:1606.05250; Rajpurkar, Jia and Liang 2018, arXiv:1806.03822"
_CONFIGURATIONS = ("squad", "squad_v2")


class SquadMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """SQuAD metric with the configurations `squad` (the default) and `squad_v2`."""

    def __init__(self, config_name: str | None = None, **kwargs: Any) -> None:
        name = "squad" if config_name in (None, "default") else config_name
        if name not in _CONFIGURATIONS:
            raise ValueError(f"config_name={name!r} must be one of {', '.join(_CONFIGURATIONS)}")
        super().__init__(config_name=name, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        prediction = {"id": datasets.Value("string"), "prediction_text": datasets.Value("string")}
        if self.config_name == "squad_v2":
            prediction["no_answer_probability"] = datasets.Value("float32")
        answers = {
            "text": datasets.List(datasets.Value("string")),
            "answer_start": datasets.List(datasets.Value("int32")),
        }
        reference = {"id": datasets.Value("string"), "answers": answers}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": prediction, "references": reference}),
        )

    def _compute(
        self,
        *,
        predictions: Sequence[dict[str, Any]],
        references: Sequence[dict[str, Any]],
        no_answer_threshold: float | None = 1.0,
        language: str = Language.SQUAD,
    ) -> dict[str, float]:
        texts = {row["id"]: row["prediction_text"] for row in predictions}
        answers = {row["id"]: row["answers"]["text"] for row in references}
        if self.config_name == "squad":
            return squad_scores(texts, answers, Language(language))
        no_answer = {row["id"]: row["no_answer_probability"] for row in predictions}
        return squad_v2_scores(texts, answers, no_answer, no_answer_threshold, Language(language))
