"""What callers send, and what they are sent: JSON, whose schemas make the OpenAPI page."""

from typing import Annotated, Any, Literal, NotRequired, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

_MOST_ANSWERS = 100


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank: give a text")
    return text


Text = Annotated[str, AfterValidator(_filled)]
Length = Annotated[int, Field(ge=1, le=100_000, strict=True)]
TopK = Annotated[int, Field(ge=1, le=_MOST_ANSWERS, strict=True)]


class _Message(BaseModel):
    # Unknown names are typing errors more often than not.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Question(_Message):
    """A question about a text, or about several together."""

    question: Text
    context: Text | None = None
    """The text that may hold the answer."""
    contexts: Annotated[list[Text], Field(min_length=1, max_length=1000)] | None = None
    """Several texts, in place of `context`; an answer says in which of them it stands."""
    top_k: TopK = 1
    """Most answers, best first."""
    threshold: float | None = None
    """No answer is given where its score is above the best answer's by more than this; without a word, as saved."""
    align_to_words: bool = False
    """Widen answers that begin or end within a word."""
    max_answer_length: Length | None = None
    """Longest answer in tokens; without a word, as saved."""
    windows: bool = False
    """Tell also where the texts were cut into windows."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.context is None) == (self.contexts is None):
            raise ValueError("give context, a text, or contexts, a list of texts")
        return self

    @property
    def texts(self) -> str | list[str]:
        """The context, or the contexts."""
        return self.contexts if self.context is None else self.context  # type: ignore[return-value]

    @property
    def num_characters(self) -> int:
        """Of question and contexts."""
        return len(self.question) + sum(map(len, self.contexts or [self.context or ""]))

    def settings(self) -> dict[str, Any]:
        """What QuestionAnswerer is told."""
        given: dict[str, Any] = {"top_k": self.top_k, "align_to_words": self.align_to_words}
        given |= {"no_answer_threshold": self.threshold, "max_answer_len": self.max_answer_length}
        return given


class Questions(_Message):
    """Questions that are answered one by one, in their order."""

    questions: Annotated[list[Question], Field(min_length=1)]


class Pair(_Message):
    """A question and its context, as Hugging Face's clients send them."""

    question: Text
    context: Text


class Parameters(BaseModel):
    """The parameters of Hugging Face's task `question-answering`; others are left out of account."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    top_k: TopK | None = None
    doc_stride: Annotated[int, Field(ge=0, le=100_000, strict=True)] | None = None
    max_answer_len: Length | None = None
    max_seq_len: Length | None = None
    max_question_len: Length | None = None
    handle_impossible_answer: bool | None = None
    align_to_words: bool | None = None


class TaskInput(BaseModel):
    """A request of Hugging Face's clients."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    inputs: Pair
    parameters: Parameters | None = None


class Answer(TypedDict):
    """An answer: context[start:end], counted in Unicode's code points. No answer is empty, with start = end = 0."""

    answer: str
    score: float
    start: int
    end: int
    context: NotRequired[int | None]


class Window(TypedDict):
    """The characters [start, end) of a context that one window holds."""

    context: int
    start: int
    end: int


class Answers(TypedDict):
    """The answers to a question, best first."""

    answers: list[Answer]
    model: str
    version: str | None
    windows: NotRequired[list[Window]]


class Problem(TypedDict):
    """Why a request is refused."""

    error: str


class ManyAnswers(TypedDict):
    """The answers to several questions, or why there are none, in their order."""

    results: list[Answers | Problem]


class Health(TypedDict):
    """Whether the service works."""

    status: Literal["ok"]


class WindowLengths(TypedDict):
    """In tokens."""

    max_length: int
    stride: int


class ModelInfo(TypedDict):
    """The model that answers."""

    name: str
    version: str | None
    scores: dict[str, float]
    window: WindowLengths
    max_answer_length: int
    no_answer_threshold: float | None
    precision: str
    device: str
    trouble: str | None
