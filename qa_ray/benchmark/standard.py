"""The standard way, which the benchmark measures qa_ray against: datasets, transformers and accelerate, plainly used.

It is what a user writes after the question-answering examples of these libraries: every window is a row of Python
lists, padded when it is made or by the collator, and answers are searched with two loops.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PreTrainedModel, default_data_collator, get_scheduler
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.schema import Float32s

Rows = dict[str, list[Any]]
Answers = dict[str, list[dict[str, Any]]]

_MODEL_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "start_positions", "end_positions")


def training_features(rows: Dataset, tokenizer: FastTokenizer, max_length: int, stride: int, *, pad: bool) -> Dataset:
    """Tokenise examples (columns question, context, answers) into labelled windows, a row each."""

    def prepare(examples: Rows) -> Rows:
        features = _encode(examples, tokenizer, max_length, stride, pad)
        example_of_feature = features.pop("overflow_to_sample_mapping")
        offset_mapping = features.pop("offset_mapping")
        features["start_positions"], features["end_positions"] = [], []
        for index, offsets in enumerate(offset_mapping):
            cls_index = features["input_ids"][index].index(tokenizer.cls_token_id)
            answers = examples["answers"][example_of_feature[index]]
            start, end = _label(answers, offsets, features.sequence_ids(index), cls_index)
            features["start_positions"].append(start)
            features["end_positions"].append(end)
        return dict(features)

    return rows.map(prepare, batched=True, remove_columns=rows.column_names)


def evaluation_features(rows: Dataset, tokenizer: FastTokenizer, max_length: int, stride: int) -> Dataset:
    """Tokenise examples into padded windows that keep the context's offsets and the example's id."""

    def prepare(examples: Rows) -> Rows:
        features = _encode(examples, tokenizer, max_length, stride, pad=True)
        example_of_feature = features.pop("overflow_to_sample_mapping")
        features["example_id"] = [examples["id"][example] for example in example_of_feature]
        for index, offsets in enumerate(features["offset_mapping"]):
            owners = features.sequence_ids(index)
            features["offset_mapping"][index] = [
                offset if owner == 1 else None for offset, owner in zip(offsets, owners, strict=True)
            ]
        return dict(features)

    return rows.map(prepare, batched=True, remove_columns=rows.column_names)


def _encode(examples: Rows, tokenizer: FastTokenizer, max_length: int, stride: int, pad: bool) -> Any:
    return tokenizer(
        [question.lstrip() for question in examples["question"]],
        examples["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length" if pad else False,
    )


def _label(
    answers: dict[str, list[Any]], offsets: list[tuple[int, int]], owners: list[int | None], cls_index: int
) -> tuple[int, int]:
    """First and last token of the first answer, or CLS twice if the window does not hold all of it."""
    if not answers["answer_start"]:
        return cls_index, cls_index
    begin = answers["answer_start"][0]
    end = begin + len(answers["text"][0])
    first, last = 0, len(owners) - 1
    while owners[first] != 1:
        first += 1
    while owners[last] != 1:
        last -= 1
    if offsets[first][0] > begin or offsets[last][1] < end:
        return cls_index, cls_index
    while first < len(offsets) and offsets[first][0] <= begin:
        first += 1
    while offsets[last][1] >= end:
        last -= 1
    return first - 1, last + 1


class StandardLoop:
    """The training loop around a DataLoader in random order."""

    def __init__(
        self,
        features: Dataset,
        tokenizer: FastTokenizer,
        model: PreTrainedModel,
        accelerator: Accelerator,
        *,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        padded: bool,
    ) -> None:
        """Set up; where `features` are not `padded` yet, each batch is padded to its longest window."""
        self._accelerator = accelerator
        columns = [name for name in _MODEL_COLUMNS if name in features.column_names]
        loader = DataLoader(
            features.select_columns(columns),
            batch_size=batch_size,
            shuffle=True,
            collate_fn=default_data_collator if padded else DataCollatorWithPadding(tokenizer),
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
        schedule = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=2 * len(loader))
        self._model, self._optimizer, self._loader, self._schedule = accelerator.prepare(
            model, optimizer, loader, schedule
        )

    def train(self, max_steps: int | None = None) -> int:
        """Make an epoch, or its first steps, and return the number of windows trained."""
        self._model.train()
        num_windows = 0
        for step, batch in enumerate(self._loader):
            if step == max_steps:
                break
            loss = self._model(**batch).loss
            self._accelerator.backward(loss)
            self._accelerator.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
            num_windows += len(batch["input_ids"])
        return num_windows


def postprocess(
    examples: Iterable[dict[str, Any]],
    features: Dataset,
    start_logits: Float32s,
    end_logits: Float32s,
    n_best: int,
    max_answer_length: int,
) -> Answers:
    """Search answers among the n best starts and ends of each window; logits are [windows, max_length].

    Returns each example's n best answers, best first, by id: dicts of offsets, score, start_logit, end_logit and
    probability, and text for the best.
    """
    features_of_example = defaultdict(list)
    for index, example_id in enumerate(features["example_id"]):
        features_of_example[example_id].append(index)
    found: Answers = {}
    for example in examples:
        spans: list[dict[str, Any]] = []
        for index in features_of_example[example["id"]]:
            offsets = features[index]["offset_mapping"]
            spans += _spans(offsets, start_logits[index], end_logits[index], n_best, max_answer_length)
        best = sorted(spans, key=lambda span: span["score"], reverse=True)[:n_best]
        for span in best[:1]:
            begin, end = span["offsets"]
            span["text"] = example["context"][begin:end]
        scores = np.array([span["score"] for span in best])
        weights = np.exp(scores - scores.max()) if best else scores
        for span, probability in zip(best, weights / weights.sum(), strict=True):
            span["probability"] = probability
        found[example["id"]] = best
    return found


def _spans(
    offsets: list[list[int] | None],
    start_logits: Float32s,
    end_logits: Float32s,
    n_best: int,
    max_answer_length: int,
) -> list[dict[str, Any]]:
    """The legal spans between the n best starts and the n best ends of one window."""
    spans = []
    starts = np.argsort(start_logits)[-1 : -n_best - 1 : -1].tolist()
    ends = np.argsort(end_logits)[-1 : -n_best - 1 : -1].tolist()
    for start in starts:
        for end in ends:
            if start >= len(offsets) or end >= len(offsets) or offsets[start] is None or offsets[end] is None:
                continue
            if end < start or end - start + 1 > max_answer_length:
                continue
            spans.append(
                {
                    "offsets": (offsets[start][0], offsets[end][1]),
                    "score": start_logits[start] + end_logits[end],
                    "start_logit": start_logits[start],
                    "end_logit": end_logits[end],
                }
            )
    return spans
