"""Whether the model and the data can be read, and how large they are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from qa_ray.config.fine_tuning import DataConfig, ModelConfig
from qa_ray.config.policies import BadRows, DataFormat
from qa_ray.data.files import HubSplit, SourceFile, find_files
from qa_ray.data.passages import read_passages
from qa_ray.data.validation import check, is_fatal
from qa_ray.doctor.verdict import Verdict, by_value, failed, passed, share, size, told, warning
from qa_ray.errors import ModelError
from qa_ray.locations import resolve
from qa_ray.model.loading import check_model, check_window, load_tokenizer
from qa_ray.schema import Passage, Problem

NUM_EXAMPLES = 10
"""Questions that are read of each split."""

# Bytes in the object store for each byte of a file, rounded up. Measured with the tokenizer of the recipe `sample` on
# SQuAD in part: nested JSON 2.3 (v1.1) and 1.9 (v2.0), JSON lines 0.79 and 0.48, CSV 0.82 and 0.50, Parquet 4.9 twice.
# Flat files repeat a context for each of its questions; Parquet is compressed.
_FACTORS = {DataFormat.SQUAD: 2.5, DataFormat.JSONL: 1.0, DataFormat.CSV: 1.0, DataFormat.PARQUET: 5.0}


@dataclass(frozen=True, slots=True)
class Look:
    """What one place sees of a split."""

    files: tuple[tuple[str, int], ...]
    """Name and bytes of each file; none for a Hub data set."""
    num_questions: int
    """Questions read, of the first few."""
    problems: tuple[str, ...]
    """What is wrong with them."""
    fatal: bool
    """Whether that stops the run, whatever data.on_bad_row says."""
    tokenized: int
    """Bytes that the tokenised split will take, about."""


def look_at_model(config: ModelConfig, max_length: int) -> None:
    """Load tokenizer and configuration, as the run will; the weights are only looked for.

    Raises:
        UserError: they cannot be loaded, or do not fit each other or the window.
    """
    tokenizer = load_tokenizer(config)
    check_window(config, tokenizer, max_length)
    check_model(config, tokenizer)
    folder = Path(resolve(config.name))
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ModelError(f"model.name={config.name}: the folder has no weights: it must hold model.safetensors")


def look_at_files(data: DataConfig, location: str) -> Look:
    """List the files of a split, and read its first examples.

    Raises:
        DataError: there are none, or their layout is not known.
    """
    files = find_files(data, location)
    sizes = _sizes(files)
    tokenized = sum(_FACTORS[file.format] * size for file, size in zip(files, sizes, strict=True))
    named = tuple((file.name, size) for file, size in zip(files, sizes, strict=True))
    return _judged(read_passages(files[:1], data, NUM_EXAMPLES), named, int(tokenized))


def look_at_hub(data: DataConfig, split: str) -> Look:
    """Read the first examples of a split of the Hub data set, without downloading the rest."""
    # Offline there is only what was downloaded before, which cannot be streamed.
    source = HubSplit(data.hub or "", split, streaming=not constants.HF_HUB_OFFLINE)
    return _judged(read_passages([source], data, NUM_EXAMPLES), (), 0)


def _sizes(files: list[SourceFile]) -> list[int]:
    """Bytes of each file, asked for all at once."""
    filesystem, first = files[0].open()
    folder = first[: -len(files[0].name)]
    return [info.size or 0 for info in filesystem.get_file_info([folder + file.name for file in files])]


def _judged(items: Iterable[Passage | Problem], files: tuple[tuple[str, int], ...], tokenized: int) -> Look:
    num_questions = 0
    problems: list[Problem] = []
    for item in items:
        num_questions += isinstance(item, Passage)
        problems += check(item)[1] if isinstance(item, Passage) else [item]
    fatal = any(is_fatal(problem) for problem in problems)
    return Look(files, num_questions, tuple(map(str, problems)), fatal, tokenized)


def same_data(field: str, data: DataConfig, found: Mapping[str, Look], failures: Mapping[str, str]) -> Verdict:
    """Say whether all places can read a split, and see the same files.

    Args:
        field: of the configuration, such as data.train.
        data: how the rows are judged.
        found: by place.
        failures: why other places could not look at it.
    """
    cure = f"--{field} must name data that every node can read: shared storage, or a URI such as s3://"
    if failures:
        return failed(told(failures), cure)
    listings = by_value({name: look.files for name, look in found.items()})
    if len(listings) > 1:
        listed = "; ".join(f"{_told_files(files)} on {share(names)}" for files, names in listings.items())
        return failed(f"not the same files everywhere: {listed}", cure)
    look = next((look for look in found.values() if look.problems), next(iter(found.values())))
    if look.problems:
        shown = f"of the first {NUM_EXAMPLES} questions, {len(look.problems)} cannot be used: {look.problems[0]}"
        if look.fatal or data.on_bad_row is BadRows.ERROR:
            return failed(shown, "mend the data, or leave such rows out with --data.on-bad-row skip")
        return warning(shown, "such rows are left out, as data.on_bad_row=skip says")
    if not look.num_questions:
        return failed(f"{_told_files(look.files)}, but no question", f"name data with questions in --{field}")
    where = ", the same everywhere" if look.files else ""
    return passed(f"{_told_files(look.files)}{where}; the first questions are sound")


def _told_files(files: tuple[tuple[str, int], ...]) -> str:
    if not files:
        return "a data set on the Hub"
    return f"{len(files)} file{'s' * (len(files) > 1)}, {size(sum(num_bytes for _, num_bytes in files))}"
