"""What runs on each Ray Train worker: load, train, evaluate and report, epoch by epoch."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object, set_seed
from ray import train

from qa_ray.config.fine_tuning import Config
from qa_ray.config.policies import Precision
from qa_ray.data.collate import Collator
from qa_ray.data.corpus import Corpus
from qa_ray.data.pipeline import Split
from qa_ray.data.template import Template
from qa_ray.data.windows import make_windows
from qa_ray.model.compute import accelerate_name, choose_precision, common_precision, precision_of
from qa_ray.model.empty import first_position
from qa_ray.model.loading import load_model
from qa_ray.model.packing import packed
from qa_ray.runs.failures import raised_by_node
from qa_ray.runs.outcome import Outcome
from qa_ray.runs.process import set_up_process
from qa_ray.runs.run import Run
from qa_ray.runs.saver import Saver
from qa_ray.runs.stream import StreamSender, StreamWishes
from qa_ray.runs.takeover import take_over
from qa_ray.runs.trainer import preemption_known
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.hardware import Hardware, WorkerGroup
from qa_ray.tracking.metrics import Record, ignore
from qa_ray.tracking.node_metrics import NodeSampler
from qa_ray.training.collectives import gather_on_main
from qa_ray.training.control import Control
from qa_ray.training.evaluator import Evaluator
from qa_ray.training.loop import TrainingLoop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingTask:
    """All that a worker needs."""

    config: Config
    folder: RunFolder
    owner: str
    """Names this task among all that ever worked on the run."""
    train: Split
    validation: Split
    template: Template
    no_answer: bool
    """Whether a prediction may be that there is no answer."""
    num_threads: int
    """CPU threads that torch computes with."""
    stream: Any
    """Actor that takes what rank 0 records."""


def train_worker(task: TrainingTask) -> Outcome:
    """Train on this rank; see `failures` for errors."""
    with raised_by_node():
        return _train(task)


def make_accelerator(config: Config, *, use_gpu: bool, keep: Precision | None = None) -> Accelerator:
    """Accelerator of this rank, with a precision that the hardware of all ranks computes in; all ranks call it.

    Args:
        config: says which precision is wanted.
        use_gpu: computes on this rank's GPU.
        keep: the precision that the run has computed in so far, which `auto` keeps to where it can.
    """
    state = PartialState(cpu=not use_gpu)
    own = choose_precision(config.train.precision, torch.device("cuda" if use_gpu else "cpu"))
    precision = common_precision(gather_object([own]), keep)
    if state.is_main_process and keep not in (None, precision):
        logger.warning(
            "train.precision=%s: the run goes on in %s, since not all workers compute in %s as it did until now",
            config.train.precision,
            precision,
            keep,
        )
    if use_gpu:
        # The process may have computed another way before. Convolutions do so by default; no model here has any.
        torch.backends.cuda.matmul.allow_tf32 = config.train.tf32
    return Accelerator(mixed_precision=accelerate_name(precision), cpu=not use_gpu)


def number_format(config: Config, accelerator: Accelerator) -> str:
    """What the record says that a worker computes in."""
    precision = precision_of(accelerator.mixed_precision)
    tf32 = config.train.tf32 and precision is Precision.FP32 and accelerator.device.type == "cuda"
    return f"{precision} with matrices in TF32" if tf32 else precision


def make_collator(config: Config, corpus: Corpus, template: Template, *, first_position: int | None = None) -> Collator:
    """Cut a corpus into windows, to be padded or, from a position on, packed."""
    windows, multiple = make_windows(corpus, config.window, template), config.batch.pad_to_multiple_of
    return Collator(corpus, windows, template, multiple, config.window.max_length, first_position)


def _train(task: TrainingTask) -> Outcome:
    set_up_process(task.num_threads)
    sender = StreamSender(task.stream)
    if PartialState(cpu=not ray.get_gpu_ids()).is_main_process:
        logging.getLogger("qa_ray").addHandler(sender)
    try:
        with _node_sampler(task):
            run = _start(task, sender)
            try:
                while not run.over:
                    run.epoch()
            except BaseException:
                run.saver.abandon()
                raise
            return run.end()
    finally:
        logging.getLogger("qa_ray").removeHandler(sender)


def _note(task: TrainingTask) -> Callable[[str], object]:
    """Tells the user of what concerns this rank's node alone: only rank 0's log is shown."""
    node = ray.util.get_node_ip_address()
    return lambda text: task.stream.put.remote(f"node {node}: {text}")


def _tell_hardware(task: TrainingTask, accelerator: Accelerator) -> None:
    """Tell the driver, which may stand on a node without GPUs, what this group computes on."""
    gpu = torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else ""
    own = Hardware.here(gpu, number_format(task.config, accelerator))
    workers = gather_on_main(accelerator, (ray.get_runtime_context().get_node_id(), own))
    if accelerator.is_main_process:
        task.stream.put.remote(WorkerGroup(tuple(workers)))


def _node_sampler(task: TrainingTask) -> contextlib.AbstractContextManager[object]:
    """Looks at this node if that is asked for; one rank of each node does."""
    every = task.config.tracking.system_metrics_every_s if task.config.tracking.enabled else None
    if every is None or train.get_context().get_local_rank() > 0:
        return contextlib.nullcontext()
    # Nodes that are gone are counted too: no curve gets another name when a cluster shrinks.
    alone = len(ray.nodes()) == 1
    stream = task.stream
    return NodeSampler(
        every, stream.put_sample.remote, stream.put.remote, address=ray.util.get_node_ip_address(), alone=alone
    )


def _start(task: TrainingTask, sender: StreamSender) -> Run:
    """Begin a run, or go on with it from its newest checkpoint."""
    config = task.config
    ownership, saved = take_over(task.folder, PartialState(), task.owner)
    kept = saved.snapshot.precision if saved else None
    accelerator = make_accelerator(config, use_gpu=bool(ray.get_gpu_ids()), keep=kept)
    _tell_hardware(task, accelerator)
    record: Record = sender if accelerator.is_main_process else ignore
    # The new head must be the same on every rank.
    set_seed(config.train.seed)
    source = dataclasses.replace(config.model, name=saved.model, revision=None) if saved else config.model
    packing = config.batch.packing
    model = load_model(packed(source) if packing else source)
    first = first_position(model) if packing else None
    collate = partial(make_collator, config, template=task.template, first_position=first)
    collator = collate(task.train.corpus())
    loop = TrainingLoop(config, collator, model, accelerator, record, note=_note(task))
    evaluator = partial(Evaluator, config=config.evaluate, no_answer=task.no_answer)
    evaluate_all = evaluate = evaluator(collate(task.validation.corpus()))
    if config.evaluate.share < 1:
        evaluate = evaluator(collate(task.validation.corpus(config.evaluate.share)))
    saver = Saver(config, task.folder, accelerator, sender.history, saved=saved, ownership=ownership)
    control = Control(config.checkpoint, accelerator, StreamWishes(task.stream, preemption_known))
    run = Run(config, accelerator, sender, record, model, loop, evaluate, evaluate_all, saver, control)
    if saved:
        run.go_on(saved)
    else:
        run.begin(evaluate=config.evaluate.before_training)
    return run
