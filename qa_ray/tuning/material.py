"""The tokenised data of a sweep: made once, before the first trial, for each data set and tokenizer that it tries."""

import itertools
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config.fine_tuning import Config
from qa_ray.errors import UserError
from qa_ray.model.loading import check_model, check_window, learn_template, load_tokenizer
from qa_ray.runs.preparation import Splits, tokenize_data
from qa_ray.tuning.bounds import Bounds
from qa_ray.tuning.domains import members
from qa_ray.tuning.space import Parameters, Space, apply, changes_tokens, defaults

logger = logging.getLogger(__name__)

Key = tuple[tuple[str, Any], ...]
"""The values of the fields that change the tokens."""


def key_of(parameters: Mapping[str, Any]) -> Key:
    """Which of a sweep's data sets a point uses."""
    return tuple(sorted((field, value) for field, value in parameters.items() if changes_tokens(field)))


@dataclass(frozen=True, slots=True)
class Material:
    """One tokenised data set, and what it says about trials that have not begun."""

    splits: Splits
    bounds: Bounds
    tokenizer: FastTokenizer

    @classmethod
    def make(cls, config: Config) -> "Material":
        """Tokenise what a configuration names.

        Raises:
            UserError: model or data cannot be used.
        """
        tokenizer = load_tokenizer(config.model)
        check_model(config.model, tokenizer)
        began = time.monotonic()
        splits = tokenize_data(config.data, tokenizer)
        logger.info(
            "tokenised once for all trials: %d training and %d validation questions, %.1f s",
            len(splits.train),
            len(splits.validation),
            time.monotonic() - began,
        )
        bounds, length = Bounds.of(splits, learn_template(tokenizer)), config.window.max_length
        most = bounds.max_stride(length)
        logger.info("windows of %d tokens leave room for every question with strides of up to %d", length, most)
        return cls(splits, bounds, tokenizer)


class Materials:
    """All tokenised data of a sweep."""

    def __init__(self, config: Config, space: Space) -> None:
        """Tokenise for every point that the space and the configuration itself can name.

        Raises:
            UserError: model or data cannot be used.
        """
        self._config = config
        self._made: dict[Key, Material] = {}
        for point in [defaults(config, space), *_points(space)]:
            key = key_of(point)
            if key not in self._made:
                self._made[key] = Material.make(apply(config, dict(key)))

    @property
    def splits(self) -> dict[Key, Splits]:
        """The data of all trials."""
        return {key: made.splits for key, made in self._made.items()}

    def objection(self, parameters: Parameters) -> str | None:
        """Why a trial could not run, or would cut questions; None if it can run."""
        made = self._made[key_of(parameters)]
        try:
            config = apply(self._config, parameters)
            check_window(config.model, made.tokenizer, config.window.max_length)
            made.bounds.check(config)
        except UserError as error:
            return str(error)
        return None


def _points(space: Space) -> Iterator[Parameters]:
    """All combinations of the values that change the tokens."""
    fields = [field for field in space if changes_tokens(field)]
    for values in itertools.product(*(members(space[field]) or () for field in fields)):
        yield dict(zip(fields, values, strict=True))
