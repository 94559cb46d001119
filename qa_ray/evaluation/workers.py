"""The evaluation of models on the workers of a cluster: each rank its examples, and one of them all that was found."""

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from accelerate import Accelerator
from ray.train import TrainingFailedError

from qa_ray.config.fine_tuning import Config
from qa_ray.data.collate import Collator
from qa_ray.data.pipeline import Split
from qa_ray.data.template import Template
from qa_ray.data.windows import cut_note
from qa_ray.errors import ClusterError, ModelError
from qa_ray.evaluation.report import EvaluatedModel
from qa_ray.locations import resolve
from qa_ray.model.folder import open_model
from qa_ray.model.int8 import use_int8
from qa_ray.runs.driver import make_trainer, patience
from qa_ray.runs.failures import cause_of, raised_by_node
from qa_ray.runs.process import set_up_process
from qa_ray.runs.resources import Resources
from qa_ray.runs.stream import Follower, StreamSender, start_stream
from qa_ray.runs.worker import make_accelerator, make_collator
from qa_ray.scores.results import assemble
from qa_ray.storage.run_folder import METRICS
from qa_ray.tracking.metrics import ignore
from qa_ray.tracking.tracker import Tracker
from qa_ray.training.evaluator import Decoded, Evaluator

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTask:
    """All that a worker needs."""

    config: Config
    model: str
    """Where workers find it."""
    split: Split
    template: Template
    threshold: float | None
    """Saved with the model or given; None if there is none."""
    resources: Resources
    int8: bool
    """Whether its linear layers compute in integers."""

    @property
    def may_abstain(self) -> bool:
        """Whether it speaks for SQuAD v2.0 that questions without an answer count."""
        return self.split.has_unanswerable or self.threshold is not None

    def ids(self) -> list[str]:
        """Of the questions, in the order of the data set."""
        return self.split.corpus().ids()


def evaluate_on_workers(tasks: Sequence[EvaluationTask], *, no_answer: bool) -> list[EvaluatedModel]:
    """Evaluate models on the same workers one after another, and score their answers here, where the texts are."""
    if not tasks:
        return []
    collators = [make_collator(task.config, task.split.corpus(), task.template) for task in tasks]
    for task, collator in zip(tasks, collators, strict=True):
        corpus, windows = collator.corpus, collator.windows
        name = task.config.model.name
        logger.info("%s: %d questions in %d windows", name, len(corpus), len(windows))
        if note := cut_note(corpus, windows):
            logger.warning("%s: %s", name, note)
    found = _run(tasks)
    return [
        _scored(task, collator, one, no_answer=no_answer)
        for task, collator, one in zip(tasks, collators, found, strict=True)
    ]


def _scored(task: EvaluationTask, collator: Collator, found: Decoded, *, no_answer: bool) -> EvaluatedModel:
    corpus, name = collator.corpus, task.config.model.name
    threshold = task.threshold if no_answer else None
    evaluation = assemble(
        corpus,
        found.candidates,
        found.null,
        found.loss,
        no_answer=no_answer,
        threshold=threshold,
        language=task.config.evaluate.language,
    )
    return EvaluatedModel(
        name=name,
        config=task.config,
        evaluation=evaluation,
        corpus=corpus,
        windows=collator.windows,
        history=run_history(name),
    )


def _run(tasks: Sequence[EvaluationTask]) -> list[Decoded]:
    stream, resources, cluster = start_stream(), tasks[0].resources, tasks[0].config.cluster
    # Ray Train wants a folder even of those who store nothing.
    with tempfile.TemporaryDirectory(prefix="qa_ray-") as place:
        work = partial(_work, tasks, stream)
        trainer = make_trainer(work, resources, cluster, name="evaluate", storage_path=place)
        with patience(resources), Follower(stream, lambda content: None, Tracker()):
            try:
                result: list[Decoded] = trainer.fit().return_value
            except TrainingFailedError as error:
                raise cause_of(error, _lost) from error
    return result


def _lost(what: str) -> ClusterError:
    return ClusterError(
        f"{what}, and cluster.max_failures is reached: its memory may have run out (lower --max-tokens-per-device), or "
        "its node is gone"
    )


def _work(tasks: Sequence[EvaluationTask], stream: Any) -> list[Decoded | None]:
    """Evaluate this rank's share with each model; rank 0 returns what all have found."""
    with raised_by_node():
        set_up_process(tasks[0].resources.cpus_per_worker)
        accelerator = make_accelerator(tasks[0].config, use_gpu=bool(ray.get_gpu_ids()))
        sender = StreamSender(stream)
        found = [_evaluate_share(task, accelerator, sender) for task in tasks]
        sender.flush()
        return found


def _evaluate_share(task: EvaluationTask, accelerator: Accelerator, sender: StreamSender) -> Decoded | None:
    if accelerator.is_main_process:
        sender.restart(0, [])  # a bar of its own
    saved = open_model(task.model, trust_remote_code=task.config.model.trust_remote_code)
    collator = make_collator(task.config, task.split.corpus(), task.template)
    if task.int8:
        use_int8(saved.model)
    evaluator = Evaluator(collator, task.config.evaluate)
    # Without a wrapper for gradients, but with the precision.
    model = accelerator.prepare_model(saved.model, evaluation_mode=True)
    try:
        # Scored on the driver, which has the texts too.
        found = evaluator.decode(model, accelerator, record=sender if accelerator.is_main_process else ignore)
    except ModelError as error:
        raise ModelError(f"{task.config.model.name}: {error}") from error
    # The next model finds the memory that this one took.
    accelerator.free_memory()
    return found


def run_history(name: str) -> list[dict[str, Any]]:
    """Lines of the metrics.jsonl of the run that a model lies in, if it does: those that tell of a step."""
    folder = Path(resolve(name))
    file = next((place / METRICS for place in (folder, folder.parent) if (place / METRICS).is_file()), None)
    try:
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file else []
        return [line for line in lines if isinstance(line, dict) and "step" in line]
    except (OSError, ValueError):
        logger.warning("%s cannot be read: the report is without learning curves", file)
        return []
