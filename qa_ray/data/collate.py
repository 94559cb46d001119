"""Windows to padded tensors."""

from dataclasses import dataclass

import numpy as np
import torch

from qa_ray.data.batching import micro_batches, padded_length
from qa_ray.data.corpus import Corpus
from qa_ray.data.template import Template
from qa_ray.data.windows import Windows
from qa_ray.schema import Int64s

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded windows in two tensors, so that little travels to a device; places count from the left of the padded row.

    Attributes:
        block: what the model takes, int64 [2 or 3 inputs, windows, length].
        places: the places below, in their order, int64 [5, windows].
        padded: whether any window is shorter than its row.
    """

    block: torch.Tensor
    places: torch.Tensor
    padded: bool

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model takes: input_ids, attention_mask and, for some families, token_type_ids, [windows, length]."""
        return dict(zip(_INPUTS, self.block, strict=False))

    @property
    def start_positions(self) -> torch.Tensor:
        """Label: first token of the answer, or CLS, [windows]."""
        return self.places[0]

    @property
    def end_positions(self) -> torch.Tensor:
        """Label: last token of the answer, inclusive, or CLS, [windows]."""
        return self.places[1]

    @property
    def context_begin(self) -> torch.Tensor:
        """Place of the first context token, [windows]."""
        return self.places[2]

    @property
    def context_end(self) -> torch.Tensor:
        """Place after the last context token, [windows]."""
        return self.places[3]

    @property
    def cls_index(self) -> torch.Tensor:
        """Place of the no-answer label, [windows]."""
        return self.places[4]

    def pin(self) -> "Batch":
        """Copy to memory from which a GPU copies by itself, while the host goes on."""
        return Batch(self.block.pin_memory(), self.places.pin_memory(), self.padded)

    def to(self, device: torch.device) -> "Batch":
        """Copy to `device`, without waiting for the copy."""
        block, places = (tensor.to(device, non_blocking=True) for tensor in (self.block, self.places))
        return Batch(block, places, self.padded)


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
        windows, template, width = self.windows, self.template, self.width(items)
        question, first, last = windows.question[items], windows.first[items], windows.last[items]
        asked, length = windows.question_length[items], windows.length[items]
        middle = len(template.prefix) + (last - first if template.context_first else asked)
        margin = (width - length) * template.pad_left
        block = np.empty((2 + template.uses_type_ids, len(items), width), np.int64)
        column = np.arange(width)
        inside = column >= margin[:, None] if template.pad_left else column < length[:, None]
        block[0], block[1] = template.pad_id, inside
        if template.uses_type_ids:
            in_first = column < (margin + middle)[:, None]
            types = np.where(in_first, template.first_type_id, template.second_type_id)
            block[2] = np.where(inside, types, template.pad_type_id)
        # From here on places count in the flattened block, over the ends of its rows.
        flat, begin = block.reshape(len(block), -1), np.arange(len(items)) * width + margin
        asked_at = middle + len(template.middle) if template.context_first else len(template.prefix)
        self.corpus.copy_questions(question, asked, flat[0], begin + asked_at)
        self.corpus.copy_contexts(question, first, last, flat[0], begin + windows.context_begin[items])
        suffix = length - len(template.suffix)
        for segment, place in ((template.prefix, 0), (template.middle, middle), (template.suffix, suffix)):
            for offset, (token_id, type_id) in enumerate(zip(segment.ids, segment.type_ids, strict=True)):
                flat[0][begin + place + offset] = token_id
                if template.uses_type_ids:
                    flat[2][begin + place + offset] = type_id
        padded = bool((length < width).any())
        return Batch(torch.from_numpy(block), torch.from_numpy(self._places(items, margin)), padded)

    def _places(self, items: Int64s, margin: Int64s) -> Int64s:
        """What `Batch.places` holds, [5, windows], of windows with so many tokens of padding in front."""
        windows = self.windows
        begin = windows.context_begin[items]
        end = begin + windows.last[items] - windows.first[items]
        labels = windows.start_position[items], windows.end_position[items]
        return np.stack([*labels, begin, end, windows.cls_index[items]]) + margin
