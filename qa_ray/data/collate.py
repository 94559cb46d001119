"""Windows to padded tensors."""

from dataclasses import dataclass

import numpy as np
import torch

from qa_ray.data.batching import micro_batches, padded_length
from qa_ray.data.corpus import Corpus
from qa_ray.data.template import Template
from qa_ray.data.windows import Windows
from qa_ray.schema import Int64s


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded windows; all places count from the left of the padded row."""

    inputs: dict[str, torch.Tensor]
    """What the model takes: input_ids, attention_mask and, for some families, token_type_ids, [windows, length]."""
    start_positions: torch.Tensor
    """Label: first token of the answer, or CLS, [windows]."""
    end_positions: torch.Tensor
    """Label: last token of the answer, inclusive, or CLS, [windows]."""
    context_begin: torch.Tensor
    """Place of the first context token, [windows]."""
    context_end: torch.Tensor
    """Place after the last context token, [windows]."""
    cls_index: torch.Tensor
    """Place of the no-answer label, [windows]."""

    def to(self, device: torch.device) -> "Batch":
        """Copy to `device`, without waiting for the copy."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(
            {name: move(tensor) for name, tensor in self.inputs.items()},
            *(move(getattr(self, name)) for name in Batch.__slots__[1:]),
        )


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes batches from window numbers."""

    corpus: Corpus
    windows: Windows
    template: Template
    pad_to_multiple_of: int
    max_length: int

    def groups(self, items: Int64s, max_tokens: int | None) -> list[Int64s]:
        """Split windows into groups of at most `max_tokens` padded tokens; None keeps all in one."""
        lengths = self.windows.length
        return micro_batches(
            items, lengths, max_tokens=max_tokens, multiple=self.pad_to_multiple_of, max_length=self.max_length
        )

    def width(self, items: Int64s) -> int:
        """Tokens to which a batch of the windows `items` is padded: the longest of them, rounded up."""
        return padded_length(int(self.windows.length[items].max()), self.pad_to_multiple_of, self.max_length)

    def __call__(self, items: Int64s) -> Batch:
        """Join, pad and label the windows `items`, [windows]; padded to the longest of them, rounded up."""
        windows, template = self.windows, self.template
        width = self.width(items)
        input_ids = np.full((len(items), width), template.pad_id, np.int64)
        type_ids = np.full((len(items), width), template.pad_type_id, np.int64)
        attention_mask = np.zeros((len(items), width), np.int64)
        margin = (width - windows.length[items]) * template.pad_left
        for line, (item, begin) in enumerate(zip(items, margin, strict=True)):
            row = slice(begin, begin + windows.length[item])
            input_ids[line, row], type_ids[line, row] = self._join(item)
            attention_mask[line, row] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if template.uses_type_ids:
            inputs["token_type_ids"] = type_ids
        context_begin = windows.context_begin[items] + margin
        return Batch(
            {name: torch.from_numpy(array) for name, array in inputs.items()},
            torch.from_numpy(windows.start_position[items] + margin),
            torch.from_numpy(windows.end_position[items] + margin),
            torch.from_numpy(context_begin),
            torch.from_numpy(context_begin + windows.last[items] - windows.first[items]),
            torch.from_numpy(windows.cls_index[items] + margin),
        )

    def _join(self, item: int) -> tuple[Int64s, Int64s]:
        """Ids and type ids of one unpadded window."""
        windows, template = self.windows, self.template
        question = windows.question[item]
        asked = self.corpus.question_ids(question)[: windows.question_length[item]]
        context = self.corpus.context_ids(question)[windows.first[item] : windows.last[item]]
        first, second = (context, asked) if template.context_first else (asked, context)
        special = (template.prefix, template.middle, template.suffix)
        prefix, middle, suffix = (segment.ids for segment in special)
        prefix_types, middle_types, suffix_types = (segment.type_ids for segment in special)
        ids = np.concatenate([prefix, first, middle, second, suffix], dtype=np.int64, casting="unsafe")
        types = np.concatenate(
            [
                prefix_types,
                np.full(len(first), template.first_type_id),
                middle_types,
                np.full(len(second), template.second_type_id),
                suffix_types,
            ],
            dtype=np.int64,
            casting="unsafe",
        )
        return ids, types
