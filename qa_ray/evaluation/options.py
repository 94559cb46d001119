"""What the evaluation job is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from qa_ray.config.answering import NUM_RESAMPLES, AnsweringOptions, AnswerSettings
from qa_ray.config.fine_tuning import AUTO, Config, EvalConfig, ModelConfig, TrainConfig, WindowConfig
from qa_ray.config.policies import AnswerPrecision, BadRows, ImpossibleAnswers, Language, NoAnswer, Precision
from qa_ray.errors import require

_FEWEST_RESAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(AnsweringOptions):
    """Evaluate a fine-tuned model on a data set, spread over the workers of a Ray cluster, and write an HTML report.

    Window, n-best, longest answer and no-answer threshold are those that were saved with the model. With --predictions
    in place of MODEL, answers that are there already are scored, here and at once.
    """

    model: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[MODEL]")] = None
    """Folder of a model or a run, Hub id, or MLflow URI (models:/NAME@ALIAS, runs:/ID/PATH)."""
    predictions: Path | None = None
    """JSON file of predicted answers, {id: text}, to be scored in place of a model's; a text is empty for no answer."""
    null_odds: Path | None = None
    """JSON file of the predictions' no-answer scores, {id: number}: what --no-answer-threshold is held against."""
    against: str | None = None
    """Another model, or another JSON file of predictions, to be compared on the same questions."""
    out: Path = Path("evaluation")
    """Folder that takes predictions, scores and report.html."""
    on_bad_row: BadRows = BadRows.ERROR
    """A row that cannot be used stops the job, or is left out and written to bad_rows.jsonl."""
    impossible_answers: ImpossibleAnswers = ImpossibleAnswers.ERROR
    """Answers where is_impossible is true are an error, or are ignored: the question has no answer."""
    n_best: int | None = None
    """Answer candidates kept per question, if not as saved."""
    no_answer_threshold: float | None = None
    """No answer is predicted where null score minus best score is above it, if not as saved; where nothing is saved,
    the best threshold for this data. Predictions in a file stand as they are without it."""
    no_answer: NoAnswer = NoAnswer.AUTO
    """Whether a prediction may be that the context holds no answer; auto: if a question has none, or a threshold was
    saved with a model."""
    language: Language = Language.SQUAD
    """The rule by which answers are compared with references: SQuAD's, made for English, or MLQA's for a language."""
    max_tokens_per_device: int | Literal["auto"] = AUTO
    """Padded tokens in one forward pass; `auto` takes as many as a CPU's cache holds or as keep a GPU busy."""
    num_resamples: int = NUM_RESAMPLES
    """Times that the questions are drawn again for the confidence intervals."""
    seed: int = 0
    """Seed of these draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            bool(self.model) != (self.predictions is not None),
            "name a MODEL (a folder, a Hub id or an MLflow URI) or --predictions FILE, one of the two",
        )
        require(
            self.null_odds is None or self.predictions is not None,
            f"--null-odds={self.null_odds} needs --predictions: a model has its own",
        )
        require(
            self.no_answer_threshold is None or self.predictions is None or self.null_odds is not None,
            f"--no-answer-threshold={self.no_answer_threshold} needs --null-odds, which it is held against",
        )
        self.require_positive("n_best", "max_tokens_per_device")
        require(
            self.num_resamples >= _FEWEST_RESAMPLES,
            f"--num-resamples={self.num_resamples} must be at least {_FEWEST_RESAMPLES}: a 95% interval needs so many",
        )
        require(self.seed >= 0, f"--seed={self.seed} must not be negative")

    @property
    def sources(self) -> list[str | Path]:
        """What is evaluated, and what it is compared with, if anything: models by name, files of predictions."""
        first = self.model or self.predictions
        assert first is not None
        other = [] if self.against is None else [self.against]
        return [first, *(Path(name) if Path(name).is_file() else name for name in other)]

    @property
    def needs_cluster(self) -> bool:
        """Whether there is a model to be evaluated."""
        return any(isinstance(source, str) for source in self.sources)

    @property
    def int8(self) -> bool:
        """Whether the models' linear layers compute in integers."""
        return self.precision is AnswerPrecision.INT8

    def configure(self, model: str, settings: AnswerSettings) -> Config:
        """The configuration in which `model` is evaluated."""
        return Config(
            model=ModelConfig(name=model, trust_remote_code=self.trust_remote_code),
            data=self.data_config(self.on_bad_row, self.impossible_answers),
            window=WindowConfig(max_length=settings.max_length, stride=settings.stride),
            train=TrainConfig(precision=Precision.FP32 if self.int8 else Precision(self.precision)),
            evaluate=EvalConfig(
                n_best=settings.n_best,
                max_answer_length=settings.max_answer_length,
                language=self.language,
                max_tokens_per_device=self.max_tokens_per_device,
            ),
            cluster=self.cluster,
        )
