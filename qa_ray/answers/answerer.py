"""Questions and contexts in, answers out: what takes the place of transformers' former question-answering pipeline.

from_pretrained("runs/first/model")(question="Who laid the first stone?", context="Charles IV. laid it in 1357.")
gives {"score": 0.97, "start": 0, "end": 11, "answer": "Charles IV."}
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.answers.decode import Candidates
from qa_ray.answers.inference import score_corpus
from qa_ray.answers.n_best import Answered, Span, distinct_spans, rank
from qa_ray.config.answering import AnswerSettings
from qa_ray.config.fine_tuning import BatchConfig, ModelConfig, WindowConfig
from qa_ray.data.collate import Collator
from qa_ray.data.corpus import Corpus
from qa_ray.data.pairs import pairs_to_passages
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.data.windows import cut_note, make_windows
from qa_ray.errors import ConfigError, DataError, require
from qa_ray.model.folder import SavedModel, open_model
from qa_ray.model.forward_check import check_longest_window
from qa_ray.model.loading import learn_template
from qa_ray.schema import Passage, Problem

logger = logging.getLogger(__name__)

_CHUNK_CHARACTERS = 2**19
"""Text that is tokenised and decoded at once: about a thousand windows."""
_MORE = 4
"""How many times longer the n-best lists become where they hold too few distinct answers."""

Result = Answered | list[Answered] | list[Answered | list[Answered]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """What is asked of one call."""

    top_k: int
    window: WindowConfig
    max_answer_length: int
    max_question_length: int | None
    threshold: float | None
    """Is taken off the score of no answer; None where an answer is always given."""
    align_to_words: bool


class QuestionAnswerer:
    """Answers questions with a fine-tuned model.

    Score: the probability of the answer's token span among all legal spans of its context, and "no answer" where that
    is allowed: a softmax over the sum of each span's start and end logit. Legal is a span of at most max_answer_len
    tokens that some window holds whole; one that stands in several windows counts once, with its best score. The score
    of "no answer" is the lowest CLS score of all windows less the threshold that was saved with the model, so that it
    is given exactly where evaluation gives it. All this depends on one question and its context alone, not on what
    else is asked, on n-best lists or on batches (up to rounding).

    Attributes:
        model: on `device`, in evaluation mode.
        tokenizer: the model's own.
        settings: what holds where a call says nothing else.
        device: where the model runs.
    """

    def __init__(
        self, saved: SavedModel, *, device: str | int | torch.device | None = None, max_tokens: int = 16_384
    ) -> None:
        """See `from_pretrained`."""
        require(max_tokens >= 1, f"max_tokens={max_tokens} must be at least 1")
        self.device = choose_device(device)
        self.model: PreTrainedModel = saved.model.to(self.device).eval()
        self.tokenizer: FastTokenizer = saved.tokenizer
        self.settings: AnswerSettings = saved.settings
        self._limit = saved.limit
        self._max_tokens = max_tokens
        self._backend = parse_tokenizer(saved.tokenizer.backend_tokenizer.to_str())
        self._template = learn_template(saved.tokenizer, saved.model.config)

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        *,
        revision: str | None = None,
        device: str | int | torch.device | None = None,
        max_tokens: int = 16_384,
        trust_remote_code: bool = False,
    ) -> Self:
        """Open a fine-tuned model with its window, n-best and threshold as they were saved in qa_ray.json.

        A model without that file gets the former pipeline's settings: windows of 384 tokens, or as many as it takes,
        that share 128; answers of at most 15 tokens; always an answer.

        Args:
            source: folder of a model or a run, Hub id, or MLflow URI (models:/NAME@ALIAS, runs:/ID/PATH).
            revision: branch, tag or commit on the Hub.
            device: "cpu", "cuda", a CUDA device's number, -1 for the CPU; None takes CUDA where there is one.
            max_tokens: padded tokens in one forward pass.
            trust_remote_code: run Python code that comes with the model. Only for models whose code you have read.

        Raises:
            ModelError: there is no such model, it has no question-answering head or no fast tokenizer, or fails on what
                that makes.
            ConfigError: there is no such device.
        """
        saved = open_model(source, revision=revision, trust_remote_code=trust_remote_code)
        config = ModelConfig(name=source, revision=revision, trust_remote_code=trust_remote_code)
        length, option = saved.settings.max_length, "max_length in its qa_ray.json"
        check_longest_window(config, saved.model.config, saved.tokenizer, length, option)
        return cls(saved, device=device, max_tokens=max_tokens)

    def __call__(
        self,
        question: object = None,
        context: object = None,
        *,
        top_k: int = 1,
        doc_stride: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        max_question_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool = False,
    ) -> Result:
        """Answer one question or many, in the order in which they are asked.

        One input gives one result, a list of any length a list of results. A result is a dict or, with top_k above 1,
        a list of dicts, best first and no two at the same place; shorter only if the context has not so many spans.
        White space around an answer is left out. Lengths and strides are in tokens.

        Args:
            question: a text or a list; without `context` a dict with question and context, or a list of such dicts.
            context: a text or a list. A single text beside a list is used for each item.
            top_k: answers to give.
            doc_stride: context that neighbouring windows share; as saved, at most half of a max_seq_len that is given.
            max_answer_len: longest answer; as saved.
            max_seq_len: tokens of a window; as saved.
            max_question_len: longer questions are cut; None cuts only those that leave a window no room for context.
            handle_impossible_answer: whether an answer may be empty. None: if a threshold was saved with the model.
                True without such a threshold: where "no answer" has the best score.
            align_to_words: widen answers that begin or end within a word; two that become the same count once, with
                the better score. The former pipeline's default was True; off, answers are those of evaluation.

        Raises:
            DataError: a question or a context is empty or missing; the message says which.
            ConfigError: a setting cannot work.
            ModelError: the model's scores are not finite.
        """
        passages, many = pairs_to_passages(question, context)
        request = _Request(
            top_k=_at_least_one("top_k", top_k),
            window=self._window(max_seq_len, doc_stride),
            max_answer_length=self.settings.max_answer_length
            if max_answer_len is None
            else _at_least_one("max_answer_len", max_answer_len),
            max_question_length=None
            if max_question_len is None
            else _at_least_one("max_question_len", max_question_len),
            threshold=self._threshold(handle_impossible_answer),
            align_to_words=align_to_words,
        )
        n_best = max(self.settings.n_best, top_k)
        found = [answers for chunk in _chunks(passages) for answers in self._answer(chunk, request, n_best)]
        results: list[Answered | list[Answered]] = [answers[0] if top_k == 1 else answers for answers in found]
        return results if many else results[0]

    def _threshold(self, handle_impossible_answer: bool | None) -> float | None:
        saved = self.settings.no_answer_threshold
        if handle_impossible_answer is None:
            return saved
        return (saved or 0.0) if handle_impossible_answer else None

    def _window(self, max_seq_len: int | None, doc_stride: int | None) -> WindowConfig:
        length, stride = self.settings.max_length, self.settings.stride
        if max_seq_len is not None:
            length, stride = _at_least_one("max_seq_len", max_seq_len), min(stride, max_seq_len // 2)
        stride = stride if doc_stride is None else doc_stride
        require(
            self._limit is None or length <= self._limit,
            f"max_seq_len={length} is beyond the {self._limit} tokens that the model takes: lower it",
        )
        require(stride >= 0, f"doc_stride={stride} must be at least 0")
        require(
            self._template.room(length, 0) - stride >= 2,
            f"doc_stride={stride} leaves no room for a question in max_seq_len={length}: lower it or raise max_seq_len",
        )
        return WindowConfig(max_length=length, stride=stride)

    def _answer(self, passages: Sequence[Passage], request: _Request, n_best: int) -> list[list[Answered]]:
        """The best answers of each passage's question, from n-best lists as long as that takes."""
        collator = self._collator(passages, request)
        candidates, null, log_partition = score_corpus(
            self.model,
            collator,
            device=self.device,
            max_tokens=self._max_tokens,
            n_best=n_best,
            max_answer_length=request.max_answer_length,
        )
        null_scores = null.score.tolist()
        results, short = [], []
        for number, spans in enumerate(_spans(collator.corpus, candidates)):
            context = passages[number].context
            found = distinct_spans(spans, context, limit=request.top_k, align_to_words=request.align_to_words)
            if len(found) < request.top_k and len(spans) == n_best:
                short.append(number)
            null_score = None if request.threshold is None else null_scores[number]
            answers = rank(
                found,
                context,
                limit=request.top_k,
                log_partition=log_partition[number],
                null_score=null_score,
                threshold=request.threshold or 0.0,
            )
            results.append(answers)
        if short:
            longer = self._answer([passages[number] for number in short], request, _MORE * n_best)
            for number, answers in zip(short, longer, strict=True):
                results[number] = answers
        return results

    def _collator(self, passages: Sequence[Passage], request: _Request) -> Collator:
        table = tokenize(passages, [], self._backend)
        problems = [Problem(**fields) for fields in table["problems"][-1].as_py()]
        if problems:
            raise DataError(str(problems[0]))
        corpus = Corpus([table])
        if request.max_question_length is not None:
            corpus.question_lengths = np.minimum(corpus.question_lengths, request.max_question_length)
        windows = make_windows(corpus, request.window, self._template)
        if note := cut_note(corpus, windows):
            logger.warning(note)
        return Collator(corpus, windows, self._template, BatchConfig().pad_to_multiple_of, request.window.max_length)


def choose_device(device: str | int | torch.device | None) -> torch.device:
    """The device that is named: by its name, a CUDA device by its number, the CPU by -1; None takes CUDA if it can.

    Raises:
        ConfigError: there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device("cpu" if device == -1 else device)
        torch.empty(0, device=chosen)
    # torch.AcceleratorError is a RuntimeError; a build without CUDA raises AssertionError.
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={device!r} cannot be used: torch sees {torch.cuda.device_count()} CUDA devices. "
            'Give "cpu", "cuda", or the number of one of them'
        ) from error
    return chosen


def _at_least_one(name: str, value: int) -> int:
    require(isinstance(value, int) and value >= 1, f"{name}={value!r} must be a whole number of at least 1")
    return value


def _chunks(passages: Sequence[Passage]) -> Iterator[Sequence[Passage]]:
    """Cut the inputs into chunks of about as much text, which bounds the memory that a call takes."""
    begin = size = 0
    for number, passage in enumerate(passages):
        size += len(passage.context) + len(passage.questions[0].text)
        if size >= _CHUNK_CHARACTERS:
            yield passages[begin : number + 1]
            begin, size = number + 1, 0
    if begin < len(passages):
        yield passages[begin:]


def _spans(corpus: Corpus, candidates: Candidates) -> Iterator[list[Span]]:
    """The candidates of each question, best first."""
    begins, ends = corpus.characters(candidates.example, candidates.first_token, candidates.last_token)
    spans = list(map(Span, candidates.score.tolist(), begins.tolist(), ends.tolist()))
    bounds = np.searchsorted(candidates.example, np.arange(len(corpus) + 1)).tolist()
    for first, last in pairwise(bounds):
        yield spans[first:last]
