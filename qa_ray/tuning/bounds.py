"""Which windows the data allow: a stride that leaves no room beside some question is found without training."""

from dataclasses import dataclass

import numpy as np

from qa_ray.config.fine_tuning import Config
from qa_ray.data.template import Template
from qa_ray.errors import ConfigError
from qa_ray.runs.preparation import Splits
from qa_ray.schema import Int64s


@dataclass(frozen=True, slots=True)
class Bounds:
    """The lengths that a window must have room for, over all questions of a data set."""

    question_lengths: Int64s
    """Tokens of each question."""
    context_lengths: Int64s
    """Tokens of its context."""
    template: Template

    @classmethod
    def of(cls, splits: Splits, template: Template) -> "Bounds":
        """Measure both splits."""
        corpora = splits.train.corpus(), splits.validation.corpus()
        return cls(
            np.concatenate([corpus.question_lengths for corpus in corpora]),
            np.concatenate([corpus.context_lengths for corpus in corpora]),
            template,
        )

    def longest_question(self, max_length: int) -> int:
        """Tokens of the longest question whose context does not fit beside it; 0 if all fit."""
        cut = self.question_lengths + self.context_lengths > self.template.room(max_length, 0)
        return int(self.question_lengths[cut].max(initial=0))

    def max_stride(self, max_length: int) -> int:
        """The largest stride that leaves each cut context more room than the stride; negative if there is none."""
        beside_longest = self.template.room(max_length, self.longest_question(max_length)) - 1
        # Even where no context is cut, windows of two tokens beside the stride are needed.
        return min(beside_longest, self.template.room(max_length, 0) - 2)

    def check(self, config: Config) -> None:
        """Refuse windows in which some question has no room.

        Raises:
            ConfigError: the message names the bound.
        """
        length, stride = config.window.max_length, config.window.stride
        most = self.max_stride(length)
        if stride > most:
            longest = self.longest_question(length)
            raise ConfigError(
                f"window.stride={stride} leaves no room in window.max_length={length} beside the longest question "
                f"whose context is cut ({longest} tokens) and {self.template.num_special} special tokens: "
                + (f"at most {most} can be shared" if most >= 0 else "no stride does")
            )
