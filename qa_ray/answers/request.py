"""What one call asks of an answerer: the settings that were saved with the model, and what the call says instead."""

import math
from dataclasses import dataclass
from typing import TypedDict

from qa_ray.config.answering import AnswerSettings
from qa_ray.config.fine_tuning import WindowConfig
from qa_ray.data.template import Template
from qa_ray.errors import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Everything that decides about the answers to the questions of a call."""

    top_k: int
    window: WindowConfig
    max_answer_length: int
    max_question_length: int | None
    threshold: float | None
    """Is taken off the score of no answer; None where an answer is always given."""
    align_to_words: bool
    max_tokens: int | None
    """Padded tokens in one forward pass, where the call bounds them."""


class CallSettings(TypedDict, total=False):
    """What a call may say besides its inputs. Lengths and strides are in tokens."""

    top_k: int
    """Answers to give, 1 without a number; of a question with contexts, over all of them."""
    doc_stride: int | None
    """Context that neighbouring windows share; as saved, at most half of a max_seq_len that is given."""
    max_answer_len: int | None
    """Longest answer; as saved."""
    max_seq_len: int | None
    """Tokens of a window; as saved."""
    max_question_len: int | None
    """Longer questions are cut; None cuts only those that leave a window no room for context."""
    handle_impossible_answer: bool | None
    """Whether an answer may be empty. None: if a threshold was saved with the model. True without such a threshold:
    where "no answer" has the best score."""
    no_answer_threshold: float | None
    """In place of the saved one: the larger, the fewer answers are empty; an answer may be."""
    align_to_words: bool
    """Widen answers that begin or end within a word; two that become the same count once, with the better score. The
    former pipeline's default was True; off, answers are those of evaluation."""
    batch_size: int | None
    """Bounds the memory of a forward pass to that of so many windows of full length; None: to the answerer's
    max_tokens."""
    padding: object
    """Without effect, which is said: windows are padded to the longest of their forward pass."""
    topk: int
    """A former name of top_k."""
    data: object
    """A former name of the input: a dict with question and context, or a list of such dicts."""
    X: object
    """Another one."""


def make_request(given: CallSettings, saved: AnswerSettings, template: Template, *, limit: int | None) -> Request:
    """Complete what a call says.

    Args:
        given: by the call.
        saved: with the model.
        template: the model's.
        limit: tokens that the model takes.

    Raises:
        ConfigError: there is no such setting, or it cannot work.
    """
    unknown = given.keys() - CallSettings.__annotations__.keys()
    require(
        not unknown,
        f"QuestionAnswerer has no argument {', '.join(sorted(unknown))}: the settings of a call are "
        f"{', '.join(CallSettings.__annotations__)}",
    )
    for name in ("top_k", "topk", "max_answer_len", "max_seq_len", "max_question_len", "batch_size"):
        value = given.get(name)
        require(
            value is None or (isinstance(value, int) and value >= 1),
            f"{name}={value!r} must be a whole number of at least 1",
        )
    top_k = given.get("top_k") or given.get("topk") or 1
    require(given.get("topk") in (None, top_k), f"top_k={top_k} and topk={given.get('topk')} contradict: give top_k")
    window = _window(saved, template, limit, given.get("max_seq_len"), given.get("doc_stride"))
    batch_size = given.get("batch_size")
    return Request(
        top_k=top_k,
        window=window,
        max_answer_length=given.get("max_answer_len") or saved.max_answer_length,
        max_question_length=given.get("max_question_len"),
        threshold=_threshold(saved.no_answer_threshold, given),
        align_to_words=given.get("align_to_words", False),
        max_tokens=batch_size and batch_size * window.max_length,
    )


def _threshold(saved: float | None, given: CallSettings) -> float | None:
    allowed, threshold = given.get("handle_impossible_answer"), given.get("no_answer_threshold")
    if threshold is None:
        return saved if allowed is None else (saved or 0.0) if allowed else None
    right = isinstance(threshold, int | float) and math.isfinite(threshold)
    require(right, f"no_answer_threshold={threshold!r} must be a finite number")
    require(
        allowed is not False, f"no_answer_threshold={threshold} needs handle_impossible_answer: leave one of them out"
    )
    return float(threshold)


def _window(
    settings: AnswerSettings, template: Template, limit: int | None, max_seq_len: int | None, doc_stride: int | None
) -> WindowConfig:
    length, stride = settings.max_length, settings.stride
    if max_seq_len is not None:
        length, stride = max_seq_len, min(stride, max_seq_len // 2)
    stride = stride if doc_stride is None else doc_stride
    require(
        limit is None or length <= limit,
        f"max_seq_len={length} is beyond the {limit} tokens that the model takes: lower it",
    )
    require(stride >= 0, f"doc_stride={stride} must be at least 0")
    require(
        template.room(length, 0) - stride >= 2,
        f"doc_stride={stride} leaves no room for a question in max_seq_len={length}: lower it or raise max_seq_len",
    )
    return WindowConfig(max_length=length, stride=stride)
