"""Questions and contexts in, answers out: what takes the place of transformers' former question-answering pipeline.

from_pretrained("runs/first/model")(question="Who laid the first stone?", context="Charles IV. laid it in 1357.")
gives {"score": 0.97, "start": 0, "end": 11, "answer": "Charles IV."}
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal, Self, Unpack

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.answers.decode import Candidates
from qa_ray.answers.inference import more_candidates, score_corpus
from qa_ray.answers.n_best import Found, Span, distinct_spans, rank
from qa_ray.answers.prepared import Prepared
from qa_ray.answers.request import CallSettings, Request, make_request
from qa_ray.config.answering import AnswerSettings
from qa_ray.config.fine_tuning import AUTO, BatchConfig, ModelConfig
from qa_ray.config.policies import AnswerPrecision
from qa_ray.data.collate import Collator
from qa_ray.data.corpus import Corpus
from qa_ray.data.pairs import make_samples, read_inputs
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.data.windows import cut_note, make_windows
from qa_ray.errors import DataError, require
from qa_ray.model.compute import answering_precision, autocast, choose_device
from qa_ray.model.folder import SavedModel, open_model
from qa_ray.model.forward_check import check_longest_window
from qa_ray.model.int8 import use_int8
from qa_ray.model.loading import learn_template
from qa_ray.model.token_limit import TokenLimit
from qa_ray.schema import Answered, Passage, Problem

logger = logging.getLogger(__name__)

_CHUNK_CHARACTERS = 2**19
"""Text that is tokenised and decoded at once: about a thousand windows."""
_MORE = 4
"""How many times longer the n-best lists become where they hold too few distinct answers."""
_FORMER: tuple[Literal["data"], Literal["X"]] = ("data", "X")
_PADDING = "windows are padded to the longest of their forward pass, which changes no answer; leave it out"

Result = Answered | list[Answered] | list[Answered | list[Answered]]


class QuestionAnswerer:
    """Answers questions with a fine-tuned model.

    Score: the probability of the answer's token span among all legal spans of its context, and "no answer" where that
    is allowed: a softmax over the sum of each span's start and end logit. Legal is a span of at most max_answer_len
    tokens that some window holds whole; one that stands in several windows counts once, with its best score. The score
    of "no answer" is the lowest CLS score of all windows less the threshold that was saved with the model, so that it
    is given exactly where evaluation gives it. Several contexts for one question are like windows of one context: one
    softmax over the spans of all, and the lowest CLS score. All this depends on one question and its contexts alone,
    not on what else is asked, on n-best lists or on batches (up to rounding).

    Attributes:
        model: on `device`, in evaluation mode.
        tokenizer: the model's own.
        settings: what holds where a call says nothing else.
        device: where the model runs.
        precision: in which it computes.
    """

    def __init__(
        self,
        saved: SavedModel,
        *,
        device: str | int | torch.device | None = None,
        max_tokens: int | Literal["auto"] = AUTO,
        precision: AnswerPrecision | str = AnswerPrecision.FP32,
    ) -> None:
        """See `from_pretrained`."""
        right = max_tokens == AUTO or (isinstance(max_tokens, int) and max_tokens >= 1)
        require(right, f"max_tokens={max_tokens} must be at least 1, or {AUTO}")
        self.device = choose_device(device)
        self.precision = answering_precision(precision, self.device)
        self.model: PreTrainedModel = saved.model.to(self.device).eval()
        if self.precision is AnswerPrecision.INT8:
            use_int8(self.model)
        self.tokenizer: FastTokenizer = saved.tokenizer
        self.settings: AnswerSettings = saved.settings
        self._limit = saved.limit
        self._memory = TokenLimit(max_tokens, "max_tokens")
        self._memory.choose(self.model, self.device)
        self._backend = parse_tokenizer(saved.tokenizer.backend_tokenizer.to_str())
        self._template = learn_template(saved.tokenizer, saved.model.config)

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        *,
        revision: str | None = None,
        device: str | int | torch.device | None = None,
        max_tokens: int | Literal["auto"] = AUTO,
        precision: AnswerPrecision | str = AnswerPrecision.FP32,
        trust_remote_code: bool = False,
    ) -> Self:
        """Open a fine-tuned model with its window, n-best and threshold as they were saved in qa_ray.json.

        A model without that file gets the former pipeline's settings: windows of 384 tokens, or as many as it takes,
        that share 128; answers of at most 15 tokens; always an answer.

        Args:
            source: folder of a model or a run, Hub id, or MLflow URI (models:/NAME@ALIAS, runs:/ID/PATH).
            revision: branch, tag or commit on the Hub.
            device: "cpu", "cuda", a CUDA device's number, -1 for the CPU; None takes CUDA where there is one.
            max_tokens: padded tokens in one forward pass; "auto" takes as many as suit the device. Fewer from then on
                where its memory did not suffice.
            precision: number format of the forward pass: "fp32", "bf16", "fp16", "int8" (on CPUs) or "auto", which is
                bf16 or fp16 where the device computes in it, and else fp32.
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
        return cls(saved, device=device, max_tokens=max_tokens, precision=precision)

    def __call__(
        self,
        *inputs: object,
        question: object = None,
        context: object = None,
        contexts: object = None,
        **settings: Unpack[CallSettings],
    ) -> Result:
        """Answer one question or many, in the order in which they are asked.

        One input gives one result, a list of any length a list of results. A result is a dict or, with top_k above 1,
        a list of dicts, best first and no two at the same place; shorter only if the context has not so many spans.
        White space around an answer is left out.

        Args:
            inputs: a question and a context; or dicts with question and context, or a list of such dicts.
            question: a text or a list.
            context: a text or a list. A single text beside a list is used for each item.
            contexts: texts that one question is asked of together, as of what a retriever has found. Their spans
                compete as those of windows do, one "no answer" holds for all, and each answer has its context's place
                in the list as `context`, which is None for "no answer". Beside a list of questions a list of texts for
                each, or one for all.
            settings: such as top_k; see `CallSettings`.

        Raises:
            DataError: a question or a context is empty or missing; the message says which. It is a ValueError.
            ConfigError: there is no such setting, or it cannot work. It is a ValueError, too.
            ModelError: the model's scores are not finite.
        """
        request = make_request(settings, self.settings, self._template, limit=self._limit)
        if "padding" in settings:
            warnings.warn(f"padding={settings['padding']!r} has no effect: {_PADDING}", stacklevel=2)
        inputs += tuple(settings[name] for name in _FORMER if name in settings)
        asked = read_inputs(*inputs, question=question, context=context, contexts=contexts)
        found = (
            one
            for chunk in _chunks(asked.passages)
            for one in self._find(chunk, self._collator([self._tokenize(chunk)], request), request)
        )
        results = [_result(list(islice(found, number or 1)), number, request) for number in asked.num_contexts]
        return results if asked.several else results[0]

    @property
    def tokens_at_once(self) -> int:
        """Padded tokens of one forward pass."""
        assert self._memory.tokens is not None
        return self._memory.tokens

    def prepare(self, question: str, contexts: str | Sequence[str], **settings: Unpack[CallSettings]) -> Prepared:
        """Read and tokenise one question without answering it: what `answer` takes, together with others.

        Args:
            question: what is asked.
            contexts: a text, or several that it is asked of together.
            settings: as those of a call.

        Raises:
            UserError: as in a call.
        """
        request = make_request(settings, self.settings, self._template, limit=self._limit)
        texts = {"context": contexts} if isinstance(contexts, str) else {"contexts": contexts}
        asked = read_inputs(question=question, **texts)
        table = self._tokenize(asked.passages)
        collator = self._collator([table], request)
        return Prepared(asked.passages, asked.num_contexts[0], request, table, collator)

    def answer(self, prepared: Sequence[Prepared]) -> list[list[Answered]]:
        """The answers to each, best first. Those that were prepared with the same settings share forward passes.

        Raises:
            ModelError: the model's scores are not finite.
        """
        results: list[list[Answered]] = [[]] * len(prepared)
        for request in dict.fromkeys(one.request for one in prepared):
            places = [place for place, one in enumerate(prepared) if one.request == request]
            group = [prepared[place] for place in places]
            collator = group[0].collator if len(group) == 1 else self._collator([one.table for one in group], request)
            found = iter(self._find([passage for one in group for passage in one.passages], collator, request))
            for place, one in zip(places, group, strict=True):
                texts = list(islice(found, len(one.passages)))
                results[place] = _ranked(texts, one.num_contexts, request)
        return results

    @staticmethod
    def create_sample(question: object, context: object) -> dict[str, object] | list[dict[str, object]]:
        """An input of a call: a dict with question and context, or a list of such dicts where one of them is a list."""
        return make_samples(question, context)

    def _find(self, passages: Sequence[Passage], collator: Collator, request: Request) -> list[Found]:
        """The best spans of each passage's question, from n-best lists as long as that takes."""
        n_best, length = max(self.settings.n_best, request.top_k), request.max_answer_length
        with autocast(self.precision, self.device):
            candidates, null, log_partition, logits = score_corpus(
                self.model,
                collator,
                device=self.device,
                limit=TokenLimit(request.max_tokens, "batch_size") if request.max_tokens else self._memory,
                n_best=n_best,
                max_answer_length=length,
            )
        distinct: dict[int, list[Span]] = {}
        numbers = list(range(len(passages)))
        while numbers:
            short = []
            for number, spans in zip(numbers, _spans(collator.corpus, candidates, numbers), strict=True):
                context, aligned = passages[number].context, request.align_to_words
                distinct[number] = distinct_spans(spans, context, limit=request.top_k, align_to_words=aligned)
                if len(distinct[number]) < request.top_k and len(spans) == n_best:
                    short.append(number)
            if numbers := short:
                n_best *= _MORE
                candidates = more_candidates(logits, np.array(short), n_best=n_best, max_answer_length=length)
        columns = (log_partition.tolist(), null.score.tolist())
        return [
            Found(passage.context, distinct[number], *scores)
            for number, (passage, *scores) in enumerate(zip(passages, *columns, strict=True))
        ]

    def _tokenize(self, passages: Sequence[Passage]) -> pa.Table:
        table = tokenize(passages, [], self._backend)
        problems = [Problem(**fields) for fields in table["problems"][-1].as_py()]
        if problems:
            raise DataError(str(problems[0]))
        return table

    def _collator(self, tables: Sequence[pa.Table], request: Request) -> Collator:
        corpus = Corpus(tables)
        if request.max_question_length is not None:
            corpus.question_lengths = np.minimum(corpus.question_lengths, request.max_question_length)
        windows = make_windows(corpus, request.window, self._template)
        if note := cut_note(corpus, windows):
            logger.warning(note)
        return Collator(corpus, windows, self._template, BatchConfig().pad_to_multiple_of, request.window.max_length)


def _result(found: list[Found], num_contexts: int | None, request: Request) -> Answered | list[Answered]:
    answers = _ranked(found, num_contexts, request)
    return answers[0] if request.top_k == 1 else answers


def _ranked(found: list[Found], num_contexts: int | None, request: Request) -> list[Answered]:
    answers = rank(found, limit=request.top_k, threshold=request.threshold)
    if num_contexts is None:
        for answer in answers:
            del answer["context"]
    return answers


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


def _spans(corpus: Corpus, candidates: Candidates, numbers: Sequence[int]) -> Iterator[list[Span]]:
    """The candidates of some questions, best first."""
    begins, ends = corpus.characters(candidates.example, candidates.first_token, candidates.last_token)
    spans = list(map(Span, candidates.score.tolist(), begins.tolist(), ends.tolist()))
    bounds = (np.searchsorted(candidates.example, numbers, side).tolist() for side in ("left", "right"))
    for first, last in zip(*bounds, strict=True):
        yield spans[first:last]
