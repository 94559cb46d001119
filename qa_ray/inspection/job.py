"""The inspection on the driver: what training would do with the data up to its first step, and what it would refuse."""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config.policies import BadRows
from qa_ray.data.pipeline import Split, tokenize_shares, tokenize_split
from qa_ray.data.template import Template
from qa_ray.data.validation import describe
from qa_ray.errors import UserError
from qa_ray.inspection.findings import Finding, find
from qa_ray.inspection.options import InspectionConfig
from qa_ray.inspection.settings import Setting, compare
from qa_ray.inspection.split import TRAIN, VALIDATION, InspectedSplit
from qa_ray.model.forward_check import check_training
from qa_ray.model.loading import check_model, check_window, input_limit, learn_template, load_settings, load_tokenizer
from qa_ray.runs.worker import make_collator
from qa_ray.storage.run_folder import guarded
from qa_ray.training.evaluator import Evaluator

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What there is to know of a run's data."""

    config: InspectionConfig
    splits: tuple[InspectedSplit, ...]
    """Those that can be read: train, validation."""
    findings: dict[str, list[Finding]]
    """Rows to look at, by split."""
    settings: tuple[Setting, ...]
    """What these and other windows give."""
    refusals: tuple[str, ...]
    """Why training would not start."""


def inspect(config: InspectionConfig) -> Inspection:
    """Look at the data of a run on the Ray cluster that this process is connected to.

    Raises:
        UserError: nothing can be shown: there is no tokenizer, or the folder cannot be written.
    """
    tokenizer, settings = load_tokenizer(config.model), load_settings(config.model)
    template = learn_template(tokenizer, settings)
    _claim(Path(config.out))
    attempts = _Attempts()
    attempts.make(lambda: check_window(config.model, tokenizer, config.window.max_length))
    attempts.make(lambda: check_model(config.model, tokenizer))
    splits = [
        _cut(name, split, config, template, attempts) for name, split in _tokenize(config, tokenizer, attempts).items()
    ]
    by_name = {split.name: split for split in splits}
    if VALIDATION in by_name and (collator := by_name[VALIDATION].collator) is not None:
        attempts.make(lambda: Evaluator(collator, config.evaluate, no_answer=True))
    collators = [split.collator for split in splits if split.collator is not None]
    if collators and not attempts.refusals:
        attempts.make(lambda: check_training(config, settings, *collators))
    return Inspection(
        config=config,
        splits=tuple(splits),
        findings={split.name: find(split, config, by_name.get(TRAIN)) for split in splits},
        settings=tuple(compare(splits, config, template, input_limit(config.model, tokenizer))),
        refusals=tuple(dict.fromkeys(attempts.refusals)),
    )


class _Attempts:
    """What is tried, and why training would stop at it."""

    def __init__(self) -> None:
        self.refusals: list[str] = []

    def make(self, action: Callable[[], T]) -> T | None:
        """What `action` returns; None where it is refused."""
        try:
            return action()
        except UserError as error:
            self.refusals.append(str(error))
            return None


def _claim(folder: Path) -> None:
    """Find out whether the page can be written before the data are read."""
    with guarded(f"--out={folder}", "written"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _tokenize(config: InspectionConfig, tokenizer: FastTokenizer, attempts: _Attempts) -> dict[str, Split]:
    """Read and tokenise both splits; what is sound of them is shown, whatever `data.on_bad_row` says."""
    data, definition = replace(config.data, on_bad_row=BadRows.SKIP), tokenizer.backend_tokenizer.to_str()
    hub = f"{data.hub} " if data.hub else ""
    found: dict[str, Split] = {}

    def keep(name: str, split: Split) -> None:
        if split.problems and config.data.on_bad_row is BadRows.ERROR:
            attempts.refusals.append(f"{name}: {describe(split.problems)}")
        found[name] = split

    if data.validation_share is not None:
        logger.info("reading and tokenising %s%s", hub, data.train)
        if (shares := attempts.make(lambda: tokenize_shares(data, definition))) is not None:
            for name, split in zip((TRAIN, VALIDATION), shares, strict=True):
                keep(name, split)
        return found
    for name, location, most in (
        (TRAIN, data.train, data.max_train_examples),
        (VALIDATION, data.validation, data.max_validation_examples),
    ):
        logger.info("%s: reading and tokenising %s%s", name, hub, location)
        read = partial(tokenize_split, data, location, max_examples=most, tokenizer=definition)
        if (whole := attempts.make(read)) is not None:
            keep(name, whole)
    return found


def _cut(name: str, split: Split, config: InspectionConfig, template: Template, attempts: _Attempts) -> InspectedSplit:
    """Cut a split into windows."""
    corpus = split.corpus()
    collator = attempts.make(lambda: make_collator(config, corpus, template))
    windows = f" in {len(collator.windows):,} windows" if collator else ""
    logger.info("%s: %s questions%s", name, f"{len(corpus):,}", windows)
    return InspectedSplit(name, split.name, split.problems, split.context_keys, corpus, collator)
