"""One window through the code of a model before anything is started: what fails in each worker fails here, once."""

import copy

import numpy as np
import torch
from transformers import PretrainedConfig
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config.fine_tuning import BatchConfig, Config, ModelConfig, WindowConfig
from qa_ray.data.collate import Collator
from qa_ray.data.corpus import Corpus
from qa_ray.data.template import Template
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.data.windows import make_windows
from qa_ray.errors import ModelError
from qa_ray.model.compute import forward
from qa_ray.model.empty import empty_models
from qa_ray.model.loading import learn_template
from qa_ray.model.packing import check_packing
from qa_ray.schema import Passage, Question


def check_training(config: Config, settings: PretrainedConfig, *collators: Collator) -> None:
    """As `check_forward`, for a run; and whether packed windows are kept apart where it packs them.

    Raises:
        ModelError: the model fails, or mixes them.
    """
    check_forward(config.model, settings, *collators)
    if config.batch.packing:
        check_packing(config.model, settings, collators[0])


def check_forward(
    config: ModelConfig, settings: PretrainedConfig, *collators: Collator, option: str = "window.max_length"
) -> None:
    """Run the longest of the collators' windows through the model without its weights, on the CPU.

    One layer is enough, if that can be computed. A model that cannot be built here is not judged.

    Args:
        config: says which model it is.
        settings: its configuration.
        collators: make the windows that it will get.
        option: how the user sets the length of windows.

    Raises:
        ModelError: the model fails, also with all its layers.
    """
    collator = max(collators, key=lambda one: one.windows.length.max())
    longest = collator.windows.length.argmax()
    batch = collator(np.array([longest]))
    if config.resize_embeddings:
        settings = copy.deepcopy(settings)
        settings.vocab_size = max(settings.vocab_size, int(batch.inputs["input_ids"].max()) + 1)
    failure: Exception | None = None
    for model in empty_models(settings, trust_remote_code=config.trust_remote_code):
        try:
            with torch.no_grad():
                forward(model, batch)
            return
        # Each family has its own way of failing: IndexError, RuntimeError, TypeError, ValueError, AssertionError, ...
        except Exception as error:
            failure = error
    if failure is not None:
        reason = " ".join(str(failure).split())
        raise ModelError(
            f"the model {config.name} fails on a window of {collator.windows.length[longest]} tokens of the "
            f"tokenizer {config.tokenizer or config.name}: {type(failure).__name__}: {reason} "
            f"(lower {option}, and see whether model and tokenizer belong together)"
        ) from failure


def check_longest_window(
    config: ModelConfig, settings: PretrainedConfig, tokenizer: FastTokenizer, max_length: int, option: str
) -> None:
    """As `check_forward`, with a window of `max_length` tokens in place of those of data, which are not read yet."""
    windows = made_windows(tokenizer, learn_template(tokenizer, settings), max_length)
    check_forward(config, settings, windows, option=option)


def made_windows(tokenizer: FastTokenizer, template: Template, max_length: int) -> Collator:
    """Windows of a text that fills them: the longest has `max_length` tokens."""
    passage = Passage("a " * 2 * max_length, (Question("made", "a", (), "made"),))
    corpus = Corpus([tokenize([passage], [], parse_tokenizer(tokenizer.backend_tokenizer.to_str()))])
    windows = make_windows(corpus, WindowConfig(max_length=max_length, stride=0), template)
    return Collator(corpus, windows, template, BatchConfig().pad_to_multiple_of, max_length)
