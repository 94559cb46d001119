"""What is saved of a model: a folder that AutoModelForQuestionAnswering and AutoTokenizer open."""

import json
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config import Config
from qa_ray.errors import StorageError

MODEL = "model"
"""Folder of the model in a checkpoint and in a run."""
EVALUATION = "evaluation"
"""Folder of the predictions in a checkpoint and in a run."""
SETTINGS = "qa_ray.json"
"""File beside the weights: how answers were decoded when the model was measured."""


def save_model(
    folder: Path, model: PreTrainedModel, tokenizer: FastTokenizer, config: Config, threshold: float | None
) -> None:
    """Save weights (safetensors), tokenizer and answer settings.

    Args:
        folder: made if it is not there.
        model: the model itself, without any wrapper.
        tokenizer: its tokenizer.
        config: the run's configuration.
        threshold: no answer is predicted where null score minus best score is above it; None if it never is.

    Raises:
        StorageError: the folder cannot be written.
    """
    settings = {
        "max_length": config.window.max_length,
        "stride": config.window.stride,
        "n_best": config.evaluate.n_best,
        "max_answer_length": config.evaluate.max_answer_length,
        "no_answer_threshold": threshold,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"the model cannot be saved in {folder}: {reason} "
            "(it must be a folder with free space that you may write to)"
        ) from error
