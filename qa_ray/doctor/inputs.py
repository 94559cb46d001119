"""Whether the model and the data can be read, and how large they are."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from huggingface_hub import constants

from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.config.policies import BadRows
from qa_ray.data.files import HubSplit, find_files
from qa_ray.data.passages import read_passages
from qa_ray.data.validation import check
from qa_ray.doctor.verdict import Verdict, failed, listed, passed, size, told
from qa_ray.errors import DataError, ModelError
from qa_ray.locations import resolve
from qa_ray.model.forward_check import check_longest_window
from qa_ray.model.loading import check_model, check_window, load_settings, load_tokenizer
from qa_ray.schema import Passage, Problem

Files = tuple[tuple[str, int], ...]
"""Name and bytes of each file of a split."""
NUM_EXAMPLES = 10
"""Questions that are read of each split."""
# fp32 weights and gradients, and Adam's two running means.
_BYTES_IN_TRAINING = 16


def look_at_model(config: ModelConfig, max_length: int) -> None:
    """Load tokenizer and configuration, as the run will; the weights are only looked for.

    Raises:
        UserError: they cannot be loaded, or do not fit each other or the window, or the model cannot compute it.
    """
    tokenizer = load_tokenizer(config)
    check_window(config, tokenizer, max_length)
    check_model(config, tokenizer)
    check_longest_window(config, load_settings(config), tokenizer, max_length, "window.max_length")
    folder = Path(resolve(config.name))
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ModelError(f"model.name={config.name}: the folder has no weights: it must hold model.safetensors")


def model_fits(name: str, num_weights: int, memory: Mapping[str, float]) -> Verdict:
    """Compare what a model takes in training, without activations, with the bytes of the nodes' smallest GPUs."""
    need = _BYTES_IN_TRAINING * num_weights
    short = {node: f"a GPU has {size(there)}" for node, there in memory.items() if there < need}
    if short:
        cure = "take a smaller model, or GPUs with more memory"
        return failed(f"weights, gradients and optimizer take {size(need)}; {told(short)}", cure)
    return passed(f"{name}, {num_weights / 1e6:.1f} million weights, is read everywhere")


def look_at_files(data: DataConfig, location: str) -> Files:
    """List the files of a split, and read its first questions.

    Raises:
        DataError: there are none, their layout is not known, or the questions would stop the run.
    """
    files = find_files(data, location)
    filesystem, first = files[0].open()
    folder = first[: -len(files[0].name)]
    infos = filesystem.get_file_info([folder + file.name for file in files])
    _check_first(data, read_passages(files[:1], data, NUM_EXAMPLES))
    return tuple((file.name, info.size or 0) for file, info in zip(files, infos, strict=True))


def look_at_hub(data: DataConfig, split: str) -> Files:
    """Read the first questions of a split of the Hub data set, without downloading the rest; it has no files here.

    Raises:
        DataError: it cannot be loaded, a column is missing, or the questions would stop the run.
    """
    # Offline there is only what was downloaded before, which cannot be streamed.
    source = HubSplit(data.hub or "", split, streaming=not constants.HF_HUB_OFFLINE)
    _check_first(data, read_passages([source], data, NUM_EXAMPLES))
    return ()


def _check_first(data: DataConfig, items: Iterable[Passage | Problem]) -> None:
    num_sound = 0
    problems: list[Problem] = []
    for item in items:
        sound, found = check(item) if isinstance(item, Passage) else (None, [item])
        num_sound += len(sound.questions) if sound else 0
        problems += found
    # A file that cannot be read to the tenth question has no sound one here.
    if problems and (data.on_bad_row is BadRows.ERROR or not num_sound):
        raise DataError(f"of the first {NUM_EXAMPLES} questions, {len(problems)} cannot be used: {problems[0]}")
    if not num_sound:
        raise DataError("there is no question in it")


def same_data(found: Mapping[str, Files]) -> Verdict:
    """Say whether all places see the same files in a split."""
    listing = next(iter(found.values()))
    seen = {name: _told(files) for name, files in found.items()}
    if any(files != listing for files in found.values()):
        cure = "name data that every node sees alike: shared storage, or a URI such as s3://"
        return failed(f"not the same files everywhere: {listed(seen)}", cure)
    where = f"{_told(listing)}, the same everywhere" if listing else "a data set on the Hub"
    return passed(f"{where}; the first questions are sound")


def _told(files: Files) -> str:
    return f"{len(files)} file{'s' * (len(files) > 1)}, {size(sum(num_bytes for _, num_bytes in files))}"
