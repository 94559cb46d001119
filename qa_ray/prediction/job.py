"""The prediction job on the driver: check model, questions and folder; then read, answer and write on the cluster."""

import logging
import pickle
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import pyarrow as pa
import ray.data
import torch
import transformers
from ray.exceptions import RayActorError
from ray.util.annotations import RayDeprecationWarning

from qa_ray.config.fine_tuning import DataConfig
from qa_ray.config.policies import DataFormat
from qa_ray.data.files import find_files
from qa_ray.data.sources import open_hub
from qa_ray.data.tables import require_columns
from qa_ray.errors import ClusterError, DataError, StorageError, UserError, require
from qa_ray.locations import is_local
from qa_ray.model.folder import SavedModel
from qa_ray.model.loading import learn_template
from qa_ray.model.precision import choose_precision
from qa_ray.prediction.actor import PartAnswerer, PredictionTask, fingerprint, load
from qa_ray.prediction.options import PredictionOptions
from qa_ray.prediction.output import ANSWERS, OutputFolder
from qa_ray.prediction.parts import Source, finished_parts, read_parts
from qa_ray.prediction.progress import ProgressBar
from qa_ray.prediction.questions import ask
from qa_ray.runs.resources import Resources, plan_resources

logger = logging.getLogger(__name__)

_PEEKED_ROWS = 100
_SHOWN_FAILURES = 10


def predict(options: PredictionOptions) -> str:
    """Answer questions on the Ray cluster that this process is connected to; returns what is to be shown.

    Raises:
        UserError: something that the user can mend; nearly all of it is found before the first forward pass.
    """
    transformers.logging.disable_progress_bar()
    resources = plan_resources(options.cluster)
    if not resources.use_gpu:
        choose_precision(options.precision, torch.device("cpu"))
    data = options.data_config()
    sources = find_sources(data, options.data)
    _peek(sources, data, options.data)
    saved = load(options)
    _check_window(options, saved)
    digest = fingerprint(saved)
    folder = OutputFolder(options.out)
    manifest = folder.claim(_manifest(options, digest, saved, sources))
    finished = finished_parts(folder.parts())
    if manifest.get("finished") == sum(map(len, finished.values())):
        return f"nothing is left to do: {folder.location} is finished"
    folder.sweep()
    task = PredictionTask(
        options=options,
        fingerprint=digest,
        folder=folder,
        use_gpu=resources.use_gpu,
        num_threads=resources.cpus_per_worker,
    )
    # The actors load it for themselves.
    del saved
    sources = [replace(source, finished=finished.get(source.index, ())) for source in sources]
    return _conclude(task, manifest, _run(task, sources, data, resources))


def find_sources(data: DataConfig, location: str) -> list[Source]:
    """Return what is to be read.

    Raises:
        DataError: there is nothing.
    """
    if data.hub is not None:
        dataset = open_hub(data, location)
        require_columns(dataset.column_names, data.columns, answers=False)
        return [Source(index=0, name=location, size=len(dataset))]
    sources = []
    for index, file in enumerate(find_files(data, location)):
        filesystem, path = file.open()
        info = filesystem.get_file_info(path)
        sources.append(
            Source(
                index=index,
                name=file.name,
                size=info.size,
                mtime_ns=info.mtime_ns,
                location=file.location,
                format=file.format,
            )
        )
    return sources


def _peek(sources: list[Source], data: DataConfig, location: str) -> None:
    """Read the first rows, and refuse data of which none can be used: its columns have other names, most likely."""
    source = sources[0]
    try:
        found = [ask(item, source.columns(data)) for item in islice(source.items(data), _PEEKED_ROWS)]
    except (UserError, pa.ArrowException, OSError) as error:
        raise DataError(f"{location}: {source.name} cannot be read: {error}") from error
    if found and all(item.reason is not None for item in found):
        raise DataError(
            f"{location}: none of the first {len(found)} rows can be answered; {found[0].record}: {found[0].reason}. "
            "Name the right columns with --columns.question and --columns.context"
        )


def _check_window(options: PredictionOptions, saved: SavedModel) -> None:
    length, stride = saved.settings.max_length, saved.settings.stride
    require(
        saved.limit is None or length <= saved.limit,
        f"--max-length={length} is beyond the {saved.limit} tokens that {options.model} takes: lower it",
    )
    require(
        learn_template(saved.tokenizer).room(length, 0) - stride >= 2,
        f"--stride={stride} leaves no room for a question in --max-length={length}: lower it or raise --max-length",
    )


def _manifest(options: PredictionOptions, digest: str, saved: SavedModel, sources: list[Source]) -> dict[str, Any]:
    return {
        "model": {"name": options.model, "revision": options.revision, "fingerprint": digest},
        "input": [{"name": source.name, "size": source.size, "mtime_ns": source.mtime_ns} for source in sources],
        "settings": {**options.recorded(), **asdict(saved.settings)},
    }


def _run(task: PredictionTask, sources: list[Source], data: DataConfig, resources: Resources) -> ProgressBar:
    """Let the cluster answer; what cannot be read of some file is told once all else is written.

    Raises:
        UserError: a model, the folder or the workers fail, or files cannot be read.
    """
    options = task.options
    logger.info("%s: %s", options.model, _workers(resources))
    failures: list[UserError] = []
    with ProgressBar(sum(source.size for source in sources), options.max_examples) as progress:
        for done in _results(task, sources, data, resources):
            failure = done.pop("failure")
            if failure is not None:
                failures.append(pickle.loads(failure))
            if failures and not isinstance(failures[-1], DataError):
                raise failures[-1]
            progress.add(**done)
    if failures:
        listed = "".join(f"\n  {failure}" for failure in failures[:_SHOWN_FAILURES])
        raise DataError(
            f"{len(failures)} of {len(sources)} files cannot be read; all other questions are answered, and the same "
            f"command tries again what is missing:{listed}"
        )
    return progress


def _workers(resources: Resources) -> str:
    fewest, most = resources.min_workers, resources.max_workers
    number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    each = "a GPU" if resources.use_gpu else f"{resources.cpus_per_worker} CPU"
    return f"{number} worker{'s' if most > 1 else ''}, each with {each}"


def _results(
    task: PredictionTask, sources: list[Source], data: DataConfig, resources: Resources
) -> Iterator[dict[str, Any]]:
    """Yield what the actors tell of each part, in the order in which they finish."""
    options = task.options
    # All in one task where they are counted together.
    blocks = len(sources) if options.max_examples is None else 1
    dataset = ray.data.from_items([asdict(source) for source in sources], override_num_blocks=blocks)
    # A part is a block of its own: it is handed on as soon as it is read, to whoever has time.
    dataset.context.target_max_block_size = 1
    parts = dataset.map_batches(
        _read,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"data": data, "options": options},
        # Reading needs little, and the actors may have all CPUs: it would wait for one for ever.
        num_cpus=0,
        compute=ray.data.TaskPoolStrategy(size=min(blocks, resources.max_workers)),
    )
    with warnings.catch_warnings():
        # The number of retries has no other name in Ray Data; without one, a part that kills its actor would do so
        # again and again.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        answered = parts.map_batches(
            PartAnswerer,
            fn_constructor_kwargs={"task": task},
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=resources.min_workers, max_size=resources.max_workers, max_tasks_in_flight_per_actor=2
            ),
            num_cpus=resources.cpus_per_worker,
            num_gpus=1 if resources.use_gpu else 0,
            max_task_retries=options.cluster.max_failures,
        )
    try:
        for table in answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from table.to_pylist()
    except RayActorError as error:
        raise ClusterError(
            "a worker process was lost again and again, and cluster.max_failures is reached: its memory may have run "
            "out (lower --max-tokens-per-device or --part-size), or its node is gone; the same command goes on"
        ) from error


def _read(rows: pa.Table, data: DataConfig, options: PredictionOptions) -> Iterable[pa.Table]:
    sources = [Source(**{**row, "format": DataFormat(row["format"])}) for row in rows.to_pylist()]
    return read_parts(
        sources, data, size=options.part_size, max_rows=options.max_examples, ending=str(options.out_format)
    )


def _conclude(task: PredictionTask, manifest: dict[str, Any], progress: ProgressBar) -> str:
    """Find out whether every part is there, and mark the folder as finished."""
    folder, options = task.folder, task.options
    if not progress.num_rows:
        raise DataError(f"{options.data}: it holds no question")
    there = sum(map(len, finished_parts(folder.parts()).values()))
    if there != progress.num_parts:
        raise StorageError(
            f"--out={options.out} holds {there} of {progress.num_parts} parts: other nodes wrote to disks of their "
            "own. Name a folder that all nodes see, or a URI"
        )
    folder.save_manifest({**manifest, "finished": there})
    place = f"{options.out.rstrip('/')}/{ANSWERS}" if is_local(options.out) else options.out
    before = progress.num_rows - progress.num_answered
    lines = [
        f"{progress.num_answered:,} questions answered in {progress.seconds:,.0f} s, "
        f"{progress.num_answered / progress.seconds:,.1f} a second",
        f"{progress.num_reasons:,} of them have a reason in place of an answer",
        f"{progress.num_rows:,} rows in {there:,} files: {place}",
    ]
    if before:
        lines.insert(1, f"{before:,} more were answered before")
    return "\n".join(lines)
