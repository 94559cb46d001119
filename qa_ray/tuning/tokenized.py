"""The tokenised data of a sweep: made once, before the first trial, for each data set and tokenizer that it tries."""

import itertools
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from transformers import PretrainedConfig
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config.fine_tuning import Config, WindowConfig
from qa_ray.data.corpus import Corpus
from qa_ray.data.template import Template
from qa_ray.data.windows import make_windows, widest_stride
from qa_ray.errors import ConfigError, UserError
from qa_ray.model.forward_check import check_training
from qa_ray.model.loading import check_model, check_window, learn_template, load_settings, load_tokenizer
from qa_ray.runs.fingerprint import Fingerprint
from qa_ray.runs.preparation import Splits, tokenize_data
from qa_ray.runs.worker import make_collator
from qa_ray.training.evaluations import check_evaluations
from qa_ray.tuning.space import Parameters, Space, apply, changes_tokens, defaults

logger = logging.getLogger(__name__)

Key = tuple[tuple[str, Any], ...]
"""The values of the fields that change the tokens."""


def key_of(parameters: Mapping[str, Any]) -> Key:
    """Which of a sweep's data sets a point uses."""
    return tuple(sorted((field, value) for field, value in parameters.items() if changes_tokens(field)))


@dataclass(frozen=True, slots=True)
class TokenizedData:
    """One tokenised data set, and the tokenizer and the model for which it was made."""

    splits: Splits
    tokenizer: FastTokenizer
    settings: PretrainedConfig

    @property
    def template(self) -> Template:
        """How windows are put together."""
        return learn_template(self.tokenizer, self.settings)

    @property
    def fingerprint(self) -> Fingerprint:
        """What trials on these data compute from."""
        return Fingerprint.of(self.splits.train, self.splits.validation, self.template)

    def why_infeasible(self, config: Config, parameters: Parameters) -> str | None:
        """Why a trial on these data could not run, or would cut questions; None if it can run."""
        try:
            point = apply(config, parameters)
            check_window(point.model, self.tokenizer, point.window.max_length)
            template, corpora = self.template, (self.splits.train.corpus(), self.splits.validation.corpus())
            check_questions(corpora, point.window, template)
            train, validation = (make_collator(point, corpus, template) for corpus in corpora)
            check_evaluations(point, len(train.windows))
            check_training(point, self.settings, train, validation)
        except UserError as error:
            return str(error)
        return None


def tokenize_all(config: Config, space: Space) -> dict[Key, TokenizedData]:
    """Tokenise for every point that the space and the configuration itself can name.

    Raises:
        UserError: model or data cannot be used.
    """
    choices = {
        field: domain.choices
        for field, domain in space.items()
        if changes_tokens(field) and isinstance(domain, CategoricalDistribution)
    }
    points = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    keys = dict.fromkeys(key_of(point) for point in [defaults(config, space), *points])
    return {key: _tokenize(apply(config, dict(key))) for key in keys}


def _tokenize(config: Config) -> TokenizedData:
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
    return TokenizedData(splits, tokenizer, load_settings(config.model))


def check_questions(corpora: Iterable[Corpus], window: WindowConfig, template: Template) -> None:
    """Refuse windows in which some question has no room.

    Raises:
        ConfigError: the message names the widest stride that would leave room.
    """
    cut = [corpus.question_lengths[make_windows(corpus, window, template).cut_questions] for corpus in corpora]
    longest = int(np.concatenate(cut).max(initial=0))
    if longest:
        most = widest_stride(window.max_length, longest, template)
        raise ConfigError(
            f"window.stride={window.stride} leaves no room in window.max_length={window.max_length} beside the longest "
            f"question whose context is cut ({longest} tokens) and {template.num_special} special tokens: "
            + (f"at most {most} can be shared" if most >= 0 else "no stride does")
        )
