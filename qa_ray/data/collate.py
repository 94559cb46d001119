"""Windows to padded tensors."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch

from qa_ray.data.batching import micro_batches, packed_micro_batches, padded_length
from qa_ray.data.corpus import Corpus
from qa_ray.data.template import Template
from qa_ray.data.windows import Windows
from qa_ray.schema import Int64s

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_PACKED_INPUTS = ("input_ids", "position_ids", "token_type_ids")


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
    def inputs(self) -> dict[str, Any]:
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

    def in_rows(self, scores: torch.Tensor) -> torch.Tensor:
        """The model's scores of all tokens as fp32 [windows, length]; -inf at padding."""
        return scores.float().masked_fill(self.inputs["attention_mask"] == 0, -torch.inf)

    def pin(self) -> Self:
        """Copy to memory from which a GPU copies by itself, while the host goes on."""
        return self._copied(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> Self:
        """Copy to `device`, without waiting for the copy."""
        return self._copied(lambda tensor: tensor.to(device, non_blocking=True))

    def _copied(self, copy: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        copied: dict[str, Any] = {name: copy(part) for name, part in parts.items() if isinstance(part, torch.Tensor)}
        return replace(self, **copied)


@dataclass(frozen=True, slots=True)
class PackedBatch(Batch):
    """Windows one after another in a single row; `places` count as if they were padded.

    Attributes:
        block: what the model takes, int64 [2 or 3 inputs, 1, tokens].
        bounds: where windows begin in the row, and where the last one ends, int32 [windows + 1].
        longest: tokens of the longest window.
        cells: where each token stands among the cells of padded rows, one row after another, int64 [tokens].
        length: cells of a padded row.
    """

    bounds: torch.Tensor
    longest: int
    cells: torch.Tensor
    length: int

    @property
    def inputs(self) -> dict[str, Any]:
        """What the model takes: input_ids, position_ids and, for some families, token_type_ids, [1, tokens].

        The bounds of the windows go with them, by the names that Transformers' kernels of variable lengths know.
        """
        bounds = {"cu_seq_lens_q": self.bounds, "cu_seq_lens_k": self.bounds}
        longest = {"max_length_q": self.longest, "max_length_k": self.longest}
        return dict(zip(_PACKED_INPUTS, self.block, strict=False)) | bounds | longest

    def in_rows(self, scores: torch.Tensor) -> torch.Tensor:
        """The model's scores of all tokens as fp32 [windows, length]; -inf at padding."""
        num_windows = self.places.shape[1]
        nothing = torch.full((num_windows * self.length,), -torch.inf, device=scores.device)
        return nothing.index_copy(0, self.cells, scores[0].float()).view(num_windows, self.length)


def pack(batch: Batch, first_position: int) -> PackedBatch:
    """Put the windows of a padded batch into one row without their padding; see `Collator.first_position`."""
    ids, mask, *type_ids = batch.block.numpy()
    inside = mask.astype(bool)
    lengths = inside.sum(1)
    bounds = np.concatenate([[0], lengths.cumsum()])
    positions = first_position + np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    row = np.stack([ids[inside], positions, *(one[inside] for one in type_ids)])
    return PackedBatch(
        torch.from_numpy(row[:, None]),
        batch.places,
        padded=False,
        bounds=torch.from_numpy(bounds.astype(np.int32)),
        longest=int(lengths.max()),
        cells=torch.from_numpy(np.flatnonzero(inside)),
        length=ids.shape[1],
    )


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes batches from window numbers."""

    corpus: Corpus
    windows: Windows
    template: Template
    pad_to_multiple_of: int
    max_length: int
    first_position: int | None = None
    """Packs windows into one row, where tokens are numbered from here on in each window; None pads them."""

    def groups(self, items: Int64s, max_tokens: int | None) -> list[Int64s]:
        """Split windows into groups of at most `max_tokens` tokens, padding included; None keeps all in one."""
        lengths = self.windows.length
        if self.first_position is not None:
            return packed_micro_batches(items, lengths, max_tokens)
        return micro_batches(
            items, lengths, max_tokens=max_tokens, multiple=self.pad_to_multiple_of, max_length=self.max_length
        )

    def shape(self, items: Int64s) -> tuple[int, int]:
        """Rows and tokens of each row in which the windows `items` go through a model."""
        if self.first_position is not None:
            return 1, int(self.windows.length[items].sum())
        return len(items), self._width(items)

    def _width(self, items: Int64s) -> int:
        return padded_length(int(self.windows.length[items].max()), self.pad_to_multiple_of, self.max_length)

    def __call__(self, items: Int64s) -> Batch:
        """Join and label the windows `items`, [windows]; padded to the longest of them, rounded up, or packed."""
        padded = self._pad(items)
        return padded if self.first_position is None else pack(padded, self.first_position)

    def _pad(self, items: Int64s) -> Batch:
        windows, template, width = self.windows, self.template, self._width(items)
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
