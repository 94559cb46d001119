"""The prediction job on the driver: check model, questions and folder; then read, answer and write on the cluster."""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from typing import Any, Self

import pyarrow as pa
import ray.data
import torch
import transformers
from ray.exceptions import RayActorError
from ray.util.annotations import RayDeprecationWarning
from tqdm.contrib.logging import logging_redirect_tqdm

from qa_ray.config.data import DataConfig
from qa_ray.data.files import HubSplit
from qa_ray.data.passages import find_sources
from qa_ray.data.rows import open_hub, read_rows, recognised
from qa_ray.errors import ClusterError, DataError, StorageError, UserError
from qa_ray.model.compute import answering_precision
from qa_ray.model.folder import SavedModel, open_for
from qa_ray.prediction.actor import AnsweredPart, PartAnswerer, PredictionTask, fingerprint
from qa_ray.prediction.notice import without_notice
from qa_ray.prediction.options import PredictionOptions
from qa_ray.prediction.output_folder import OutputFolder
from qa_ray.prediction.parts import (
    FIRST_PART_SIZE,
    Input,
    finished_parts,
    input_question,
    pack,
    read_packed,
    unpack,
)
from qa_ray.prediction.result import PredictionResult
from qa_ray.runs.progress import make_bar
from qa_ray.runs.resources import Resources, plan_resources

logger = logging.getLogger(__name__)

_PEEKED_ROWS = 100
_SHOWN_FAILURES = 10
_BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
_LINE = "{desc}: {percentage:3.0f}% [{elapsed}<{remaining}{postfix}]"


class ProgressBar:
    """Counts questions, and guesses from the share of the input that is done how many there are.

    Attributes:
        num_rows: questions done, with those that were done before.
        num_answered: questions done now.
        num_parts: parts of the input done.
        num_reasons: questions among the latter that could not be answered.
    """

    def __init__(self, size: int, max_rows: int | None) -> None:
        """Begin: `size` is that of the whole input, `max_rows` are the most that are done of it."""
        self.num_rows = self.num_answered = self.num_parts = self.num_reasons = 0
        self._size = max(size, 1)
        self._max_rows = max_rows
        self._size_done = 0.0
        self._bar = make_bar(_LINE, bar_format=_BAR, total=1.0, desc="predict")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return float(self._bar.format_dict["elapsed"])

    def add(self, part: AnsweredPart) -> None:
        """Count a part of the input."""
        self.num_rows += part.num_rows
        self.num_parts += 1
        self._size_done += part.size
        if not part.finished_before:
            self.num_answered += part.num_rows
            self.num_reasons += part.num_reasons
        share = self._size_done / self._size
        if self._max_rows is not None:
            share = max(share, self.num_rows / self._max_rows)
        share = min(share, 1.0)
        rate = self.num_answered / max(self.seconds, 1e-9)
        text = f"{self.num_rows:,} of about {self.num_rows / max(share, 1e-9):,.0f} questions, {rate:.1f}/s"
        self._bar.set_postfix_str(text, refresh=False)
        if part.finished_before:
            # What takes no time must not shorten the time that is left.
            self._bar.initial += share - self._bar.n
        self._bar.update(share - self._bar.n)


def predict(options: PredictionOptions) -> PredictionResult:
    """Answer questions on the Ray cluster that this process is connected to.

    Raises:
        UserError: something that the user can mend; nearly all of it is found before the first forward pass.
    """
    transformers.logging.disable_progress_bar()
    resources = plan_resources(options.cluster)
    if not resources.use_gpu:
        answering_precision(options.precision, torch.device("cpu"), "--precision")
    data = options.data_config()
    inputs = find_inputs(data, options.data)
    logger.info("%s: %s", options.data, recognised([item.source for item in inputs]))
    _peek(inputs[0], data, options.data)
    saved = open_for(options, options.model, revision=options.revision)
    digest = fingerprint(saved)
    folder = OutputFolder(options.out)
    manifest = folder.claim(_manifest(options, digest, saved, inputs))
    finished = finished_parts(folder.parts())
    if manifest.get("finished") == sum(map(len, finished.values())):
        return PredictionResult(options.out, options.out_format, num_files=manifest["finished"])
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
    inputs = [replace(item, finished=finished.get(item.index, ())) for item in inputs]
    return _conclude(task, manifest, _run(task, inputs, data, resources))


def find_inputs(data: DataConfig, location: str) -> list[Input]:
    """Return what is to be read.

    Raises:
        DataError: there is nothing.
    """
    inputs = []
    for index, source in enumerate(find_sources(data, location)):
        if isinstance(source, HubSplit):
            num_rows = len(open_hub(source, data))
            inputs.append(Input(index=index, source=replace(source, num_rows=num_rows), size=num_rows))
        else:
            filesystem, path = source.open()
            info = filesystem.get_file_info(path)
            inputs.append(Input(index=index, source=source, size=info.size, mtime_ns=info.mtime_ns))
    return inputs


def _peek(item: Input, data: DataConfig, location: str) -> None:
    """Read the first rows, and refuse data of which none can be used: its columns have other names, most likely."""
    try:
        rows = islice(read_rows(item.source, data, answers=False), _PEEKED_ROWS)
        found = [input_question(row, data.columns) for row in rows]
    except DataError as error:
        raise DataError(f"{location}: {item.source.name}: {error}") from error
    if found and all(question.reason is not None for question in found):
        raise DataError(
            f"{location}: none of the first {len(found)} rows can be answered; {found[0].record}: {found[0].reason}. "
            "Name the right columns with --columns.question and --columns.context"
        )


def _manifest(options: PredictionOptions, digest: str, saved: SavedModel, inputs: list[Input]) -> dict[str, Any]:
    return {
        "model": {"name": options.model, "revision": options.revision, "fingerprint": digest},
        "input": [{"name": item.source.name, "size": item.size, "mtime_ns": item.mtime_ns} for item in inputs],
        "settings": {**options.recorded(), "first_part_size": FIRST_PART_SIZE, **asdict(saved.settings)},
    }


def _run(task: PredictionTask, inputs: list[Input], data: DataConfig, resources: Resources) -> ProgressBar:
    """Let the cluster answer; what cannot be read of some file is told once all else is written.

    Raises:
        UserError: a model, the folder or the workers fail, or files cannot be read.
    """
    options = task.options
    logger.info("%s: %s", options.model, _workers(resources))
    failures: list[UserError] = []
    size = sum(item.size for item in inputs)
    with without_notice(), ProgressBar(size, options.max_examples) as progress, logging_redirect_tqdm():
        for part in _results(task, inputs, data, resources):
            if part.failure is not None:
                failures.append(part.failure)
                if not isinstance(part.failure, DataError):
                    raise part.failure
            progress.add(part)
    if failures:
        listed = "".join(f"\n  {failure}" for failure in failures[:_SHOWN_FAILURES])
        others = " and in the other files" if options.max_examples is None else ""
        raise DataError(
            f"{len(failures)} of {len(inputs)} files cannot be read to their end; all questions before that{others} "
            f"are answered, and the same command tries again what is missing:{listed}"
        )
    return progress


def _workers(resources: Resources) -> str:
    fewest, most = resources.min_workers, resources.max_workers
    number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    each = "a GPU" if resources.use_gpu else f"{resources.cpus_per_worker} CPU"
    return f"{number} worker{'s' if most > 1 else ''}, each with {each}"


def _results(
    task: PredictionTask, inputs: list[Input], data: DataConfig, resources: Resources
) -> Iterator[AnsweredPart]:
    """Yield what the actors tell of each part, in the order in which they finish."""
    options = task.options
    # All in one task where they are counted together.
    blocks = len(inputs) if options.max_examples is None else 1
    dataset = ray.data.from_arrow(pa.concat_tables(map(pack, inputs)), override_num_blocks=blocks)
    # A part is a block of its own: it is handed on as soon as it is read, to whoever has time.
    dataset.context.target_max_block_size = 1
    # The job has its own.
    dataset.context.enable_progress_bars = False
    size, limit, ending = options.part_size, options.max_examples, str(options.out_format)
    parts = dataset.map_batches(
        read_packed,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"data": data, "size": size, "max_rows": limit, "ending": ending},
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
            yield from unpack(table)
    except RayActorError as error:
        raise ClusterError(
            "a worker process was lost again and again, and cluster.max_failures is reached: its memory may have run "
            "out (lower --max-tokens-per-device or --part-size), or its node is gone; the same command goes on"
        ) from error


def _conclude(task: PredictionTask, manifest: dict[str, Any], progress: ProgressBar) -> PredictionResult:
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
    return PredictionResult(
        options.out,
        options.out_format,
        num_files=there,
        num_rows=progress.num_rows,
        num_answered=progress.num_answered,
        num_reasons=progress.num_reasons,
        seconds=progress.seconds,
    )
