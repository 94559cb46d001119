"""A model folder (weights, tokenizer, answer settings): saved, and opened from a disk, the Hub or MLflow."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerFast as FastTokenizer
from transformers.utils import cached_file

from qa_ray.config.answering import AnsweringOptions, AnswerSettings
from qa_ray.config.fine_tuning import Config, ModelConfig
from qa_ray.errors import ModelError, StorageError, UserError, require
from qa_ray.locations import resolve, without_secrets
from qa_ray.model.forward_check import check_longest_window
from qa_ray.model.loading import check_model, check_window, input_limit, learn_template, load_model, load_tokenizer

SETTINGS = "qa_ray.json"
"""File beside the weights: how answers were decoded when the model was measured."""
_MLFLOW = ("models:/", "runs:/")


class SavedModel(NamedTuple):
    """A fine-tuned model and all that belongs to it."""

    model: PreTrainedModel
    tokenizer: FastTokenizer
    settings: AnswerSettings
    limit: int | None
    """Most tokens that the model takes, if it has a limit."""


def open_for(options: AnsweringOptions, name: str, *, revision: str | None = None) -> SavedModel:
    """Open the model `name`, with the answer settings that a job's options ask for.

    Raises:
        ModelError: there is no such model, or it cannot compute a window of that length.
        ConfigError: a setting cannot work, with this model or at all.
    """
    saved = open_model(name, revision=revision, trust_remote_code=options.trust_remote_code)
    template = learn_template(saved.tokenizer, saved.model.config)
    settings = answer_settings(options, name, saved.settings)
    length, stride = settings.max_length, settings.stride
    require(
        saved.limit is None or length <= saved.limit,
        f"--max-length={length} is beyond the {saved.limit} tokens that {name} takes: lower it",
    )
    require(
        template.room(length, 0) - stride >= 2,
        f"--stride={stride} leaves no room for a question in --max-length={length}: lower it or raise --max-length",
    )
    config = ModelConfig(name=name, revision=revision, trust_remote_code=options.trust_remote_code)
    check_longest_window(config, saved.model.config, saved.tokenizer, length, "--max-length")
    return saved._replace(settings=settings)


def answer_settings(options: AnsweringOptions, model: str, saved: AnswerSettings) -> AnswerSettings:
    """Return the settings saved with `model`, with those that are given in their place.

    Raises:
        ConfigError: the stride does not fit the window.
    """
    asked = {field.name: getattr(options, field.name, None) for field in fields(saved)}
    given = {name: value for name, value in asked.items() if value is not None}
    length, stride = given.get("max_length", saved.max_length), given.get("stride", saved.stride)
    require(
        0 <= stride < length,
        f"--stride={stride} must be in [0, --max-length={length}): what is not given was saved with {model}",
    )
    return replace(saved, **given)


def open_model(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> SavedModel:
    """Load a fine-tuned model, from safetensors only, with the answer settings that were saved beside it.

    Args:
        source: local folder, also a run's folder with the model in `model`; Hub id; package://PACKAGE/FOLDER; or an
            MLflow URI (models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH).
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        ModelError: it cannot be found or loaded, has no question-answering head or no fast tokenizer, or its settings
            cannot be read.
        ConfigError: its window is longer than its input.
    """
    if not source.startswith(_MLFLOW):
        return _open(_model_folder(source), revision, trust_remote_code)
    with _downloaded(source) as folder:
        try:
            return _open(str(folder), None, trust_remote_code)
        except UserError as error:
            # The copy's place says nothing to whoever named the URI.
            raise type(error)(f"{source}: {error}") from error


def _open(name: str, revision: str | None, trust_remote_code: bool) -> SavedModel:
    config = ModelConfig(name=name, revision=revision, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(config)
    check_model(config, tokenizer)
    limit = input_limit(config, tokenizer)
    settings = _read_settings(config) or _default_settings(limit)
    check_window(config, tokenizer, settings.max_length)
    return SavedModel(load_model(config, new_head=False), tokenizer, settings, limit)


def _model_folder(source: str) -> str:
    """The folder `model` of a run's folder; anything else as it is."""
    inner = Path(resolve(source)) / "model"
    return str(inner) if not _holds_weights(inner.parent) and _holds_weights(inner) else source


def _holds_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


@contextmanager
def reading_mlflow(action: str) -> Iterator[None]:
    """Word what MLflow raises; `action` says what cannot be done, up to the server's name.

    Raises:
        ModelError: MLflow raised something.
    """
    import mlflow  # here, since it costs seconds, and only models that MLflow keeps need it

    try:
        yield
    # MLflow lets through whatever its many stores raise.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        where = without_secrets(mlflow.get_tracking_uri())
        raise ModelError(
            f"cannot {action} {where}: {without_secrets(reason)} (MLFLOW_TRACKING_URI names another server)"
        ) from error


@contextmanager
def _downloaded(uri: str) -> Iterator[Path]:
    """The folder of a model's files, copied from MLflow for as long as the context lasts."""
    import mlflow  # here, as above

    with tempfile.TemporaryDirectory(prefix="qa_ray-") as target:
        with reading_mlflow(f"fetch the model {uri} from"):
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=target)
        folders = sorted({path.parent for path in Path(target).rglob("config.json")}, key=lambda path: path.parts)
        if not folders:
            raise ModelError(f"{uri} holds no model: there is no config.json in it")
        yield min(folders, key=lambda path: (not _holds_weights(path), len(path.parts)))


def _read_settings(config: ModelConfig) -> AnswerSettings | None:
    """The settings that stand beside the weights, if there are any."""
    path = _settings_file(config)
    if path is None:
        return None
    try:
        return _parse_settings(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{config.name}: {SETTINGS} cannot be used: {error}; save the model again") from error


def _settings_file(config: ModelConfig) -> Path | None:
    folder = Path(resolve(config.name))
    if folder.is_dir():
        return folder / SETTINGS if (folder / SETTINGS).is_file() else None
    try:
        found = cached_file(config.name, SETTINGS, revision=config.revision)
    except OSError:
        # What transformers raises for a file that a repository has not.
        return None
    return Path(found) if found else None


def _parse_settings(content: Any) -> AnswerSettings:
    names = {field.name for field in fields(AnswerSettings)}
    missing = names - content.keys() if isinstance(content, dict) else names
    require(not missing, f"it lacks {', '.join(sorted(missing))}")
    return AnswerSettings(**{name: content[name] for name in names})


def _default_settings(limit: int | None) -> AnswerSettings:
    usual = AnswerSettings()
    length = min(usual.max_length, limit or usual.max_length)
    return AnswerSettings(max_length=length, stride=min(usual.stride, length // 2))


def save_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: FastTokenizer,
    config: Config,
    threshold: float | None,
    *,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Save weights (safetensors), tokenizer and answer settings.

    Args:
        folder: made if it is not there.
        model: the model itself, without any wrapper.
        tokenizer: its tokenizer.
        config: the run's configuration.
        threshold: no answer is predicted where null score minus best score is above it; None if it never is.
        weights: a copy of the model's weights to save in their place.

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
        model.save_pretrained(folder, state_dict=weights)
        tokenizer.save_pretrained(folder)
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"the model cannot be saved in {folder}: {reason} "
            "(it must be a folder with free space that you may write to)"
        ) from error
