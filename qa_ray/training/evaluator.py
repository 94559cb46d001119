"""Evaluate a model: spread by example, decoded to n-best, and only the n-best gathered.

All windows of an example go to one rank, so no logits cross ranks, and memory is bounded by the n-best lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from qa_ray.answers.decode import Candidates
from qa_ray.answers.inference import Decoder
from qa_ray.answers.n_best import NullSpans
from qa_ray.config.fine_tuning import EvalConfig
from qa_ray.data.batching import share_of_rank
from qa_ray.data.collate import Collator
from qa_ray.errors import DataError
from qa_ray.model.compute import forward, span_loss
from qa_ray.model.token_limit import TokenLimit, in_groups
from qa_ray.schema import Int64s
from qa_ray.scores.results import Evaluation, assemble
from qa_ray.tracking.metrics import Progress, Record, ignore
from qa_ray.training.collectives import gather_on_main


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is found of examples, by one rank or by all: arrays, without the texts."""

    candidates: Candidates
    null: NullSpans
    loss: float
    """Summed over the windows of one rank, or the mean over those of all."""


class Evaluator:
    """Evaluates models on one split; every rank holds one and calls it together with the others."""

    def __init__(self, collator: Collator, config: EvalConfig, *, no_answer: bool = False) -> None:
        """Prepare the split of `collator`; `no_answer` allows the prediction that the context holds none.

        Raises:
            DataError: no question of the split has an answer.
        """
        if len(collator.corpus) == 0 or (collator.corpus.answer_first < 0).all():
            raise DataError("data.validation has no question with an answer: there is nothing to measure a model by")
        self._collate = collator
        self._config = config
        self._no_answer = no_answer
        self._limit = TokenLimit(config.max_tokens_per_device, "evaluate.max_tokens_per_device")

    def __call__(
        self, model: nn.Module, accelerator: Accelerator, *, step: int = 0, record: Record = ignore
    ) -> Evaluation | None:
        """Evaluate `model`, already on the accelerator's device; rank 0 gets the result, the others None.

        Raises:
            ModelError: on a rank that meets a logit that is not a finite number.
            ClusterError: the device's memory does not hold a single window.
        """
        found = self.decode(model, accelerator, step=step, record=record)
        if found is None:
            return None
        return assemble(
            self._collate.corpus,
            found.candidates,
            found.null,
            found.loss,
            no_answer=self._no_answer,
            language=self._config.language,
        )

    def decode(
        self, model: nn.Module, accelerator: Accelerator, *, step: int = 0, record: Record = ignore
    ) -> Decoded | None:
        """Find what is there to be scored, as a call does, for one who scores it elsewhere."""
        was_training = model.training
        model.eval()
        share = self._run_share(model, accelerator, step, record)
        model.train(was_training)
        shares = gather_on_main(accelerator, share)
        return self._join(shares) if accelerator.is_main_process else None

    def _run_share(self, model: nn.Module, accelerator: Accelerator, step: int, record: Record) -> Decoded:
        self._limit.choose(model, accelerator.device)
        windows, corpus = self._collate.windows, self._collate.corpus
        tokens = np.bincount(windows.question, windows.length, len(corpus)).astype(np.int64)
        examples = share_of_rank(np.arange(len(corpus)), tokens, accelerator.process_index, accelerator.num_processes)
        mine = np.flatnonzero(np.isin(windows.question, examples))
        decoder = Decoder(
            windows,
            n_best=self._config.n_best,
            max_answer_length=self._config.max_answer_length,
            named=lambda question: f"{corpus.record(question)}, id {corpus.id(question)}",
        )
        losses = [torch.zeros((), device=accelerator.device)]
        done = 0

        def compute(group: Int64s) -> torch.Tensor:
            batch = self._collate(group).to(accelerator.device)
            with torch.no_grad():
                logits = forward(model, batch)
            loss = span_loss(logits, batch)
            decoder.add(group, logits, batch)
            return loss

        for group, loss in in_groups(self._collate, mine, self._limit, compute):
            losses.append(loss)
            done += len(group)
            record(Progress("evaluate", done, len(mine), step))
        # Read once: each number by itself would wait for the device.
        return Decoded(*decoder.join(), sum(torch.stack(losses).tolist()))

    def _join(self, shares: Sequence[Decoded]) -> Decoded:
        loss = sum(share.loss for share in shares) / len(self._collate.windows)
        candidates = _concatenate([share.candidates for share in shares])
        null = NullSpans(*(np.concatenate([getattr(s.null, name) for s in shares]) for name in NullSpans.__slots__))
        return Decoded(candidates, null, loss)


def _concatenate(parts: Sequence[Candidates]) -> Candidates:
    """All ranks' candidates, sorted by example again; ranks hold different examples."""
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in Candidates.__slots__]
    order = np.argsort(columns[0], kind="stable")
    return Candidates(*(column[order] for column in columns))
